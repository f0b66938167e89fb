// Bodies of requests.

/** What the user says, with the picture before the words. */
function said(question, url) {
  const text = { type: "text", text: question };
  return { role: "user", content: url ? [{ type: "image_url", image_url: { url } }, text] : [text] };
}

/** Earlier turns, one list for each setting, so that each goes on from its own answers. */
export class History {
  constructor() {
    this.forget();
  }

  forget() {
    this.lists = [[], []];
  }

  /** Messages of a request: the picture comes once, where it was first asked about. */
  messages(slot, question, url, follow) {
    const earlier = follow ? this.lists[slot] : [];
    return [...earlier, said(question, earlier.length ? null : url)];
  }

  keep(slot, messages, answer) {
    this.lists[slot] = [...messages, { role: "assistant", content: answer }];
  }
}
