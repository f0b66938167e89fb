"""What a decoder was asked to do in a conversation, so that another one can be asked the same."""

from edge_mllm.decoders.protocol import Tokens


class Recorder:
    """Notes what a decoder is asked to do, and its logits."""

    def __init__(self, decoder, monkeypatch):
        self.calls, self.logits = [], []
        for name in ("prefill", "step", "truncate"):
            monkeypatch.setattr(decoder, name, self._wrap(name, getattr(decoder, name), decoder))

    def _wrap(self, name, genuine, decoder):
        def call(argument):
            start = decoder.n_past
            result = genuine(argument)
            if name == "truncate":
                self._forget(argument)
            else:
                self.calls.append((start, name, argument))
                self.logits.append(result)
            return result

        return call

    def _forget(self, n_past):
        """Calls whose cells are gone; only whole calls may go, else their borders could not be repeated."""
        kept = [call for call in self.calls if call[0] < n_past]
        if kept:
            start, name, argument = kept[-1]
            length = (
                1
                if name == "step"
                else sum(len(part.ids) if isinstance(part, Tokens) else len(part.embeddings) for part in argument)
            )
            assert start + length <= n_past, "a call was cut in the middle"
        self.calls = kept
