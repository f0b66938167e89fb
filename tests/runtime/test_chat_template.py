"""The sandbox: published templates render as in transformers, hostile ones get nowhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from image_settings import chat
from PIL import Image
from tiny_models import SMOLVLM_TEMPLATE

from edge_mllm.errors import PromptError
from edge_mllm.prompt import sandbox
from edge_mllm.prompt import template as chat_template
from edge_mllm.prompt.template import ChatTemplate, plain

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [*chat("Hi <b>", 2), {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}, *chat("So?", 0)]

PUBLISHED_WAYS = {
    "blocks are trimmed": "{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\n",
    "loop controls": "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m['role'] }}{% endfor %}",
    "tojson": "{{ messages[0] | tojson }}{{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "namespace called with self": "{% set ns = namespace(self=3) %}{{ ns.self }}",
    "dict": "{{ dict(a=1, b=2) | tojson }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "special tokens": "{{ bos_token }}{{ messages | length }}{{ eos_token }}",
    "tools are none": "{{ tools is none }}{{ documents is none }}{{ tools is defined }}",
    "generation prompt": "{% if add_generation_prompt %}A:{% endif %}",
    "string methods": "{{ messages[0].role.upper() + messages[0]['role'].strip() * 3 }}{{ 2 ** 10 }}",
    "joined with a tilde": "{% set a = messages[0].role ~ 1 ~ none ~ nothing %}{{ a ~ '!' }}",
    "filters": "{{ messages | map(attribute='role') | join(', ') | replace('user', 'you') | indent(2) | center(40) }}",
    "selecting": "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ '%s-%03d' % ('a', 7) }}",
    "a loop with a condition": "{% for m in messages if m.role %}{{ loop.last }}{% endfor %}{{ messages | count }}",
    "undefined is empty": "[{{ messages[0].name }}]",
    "year": "{{ strftime_now('%Y') | length }}",
    "smolvlm": SMOLVLM_TEMPLATE,
}


@pytest.mark.parametrize("name", PUBLISHED_WAYS)
def test_templates_render_as_in_transformers(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    source = PUBLISHED_WAYS[name]
    (expected,), _ = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=True, **SPECIAL)
    assert ChatTemplate(source).render(MESSAGES, SPECIAL) == expected


def test_the_generation_prompt_can_be_left_out() -> None:
    template = ChatTemplate(SMOLVLM_TEMPLATE)
    assert template.render(MESSAGES, {}) == template.render(MESSAGES, {}, add_generation_prompt=False) + "Assistant:"


def test_a_template_can_refuse() -> None:
    template = ChatTemplate("{{ raise_exception('roles must\nalternate') }}")
    with pytest.raises(PromptError, match="refused the messages: roles must alternate"):
        template.render(MESSAGES, {})


ESCAPES = {
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['__builtins__'] }}",
    "globals of a global": "{{ namespace.__init__.__globals__ }}",
    "globals of cycler": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "globals of lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "the environment": "{{ self.__init__.__globals__ }}",
    "attr filter": "{{ (''|attr('__class__')).mro() }}",
    "map attribute": "{{ [''] | map(attribute='__class__') | list | first | attr('mro') }}{{ ''.__class__.mro() }}",
    "format string": "{{ '{0.__class__.__mro__}'.format(messages) }}{{ ''.__class__.x.y }}",
    "changing messages": "{{ messages.append(1) }}",
    "changing a message": "{{ messages[0].update({'role': 'x'}) }}",
    "underscored name": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "underscored argument": "{% set ns = namespace(__init__=1) %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "a large text": "{{ 'a' * 10000000000 }}",
    "a large text, turned round": "{{ 10000000000 * 'a' }}",
    "a large list": "{{ [0] * 10000000000 }}",
    "a large power": "{{ 10 ** 10000000000 }}",
    "a large range": "{% for i in range(10000000) %}x{% endfor %}",
    "undefined call": "{{ open('/etc/passwd') }}",
    "division by zero": "{{ 1 / 0 }}",
    "two nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that pass all over": "{% for i in range(9999) %}{% for j in range(9999) if false %}{% endfor %}{% endfor %}",
    "a loop that calls itself": "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "macros that call two": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(99) }}",
    "long steps": "{% set x = 'a' * 999999 %}{% for i in range(9999) %}{{ x | replace('a', 'b') | count }}{% endfor %}",
    "sums that double": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "joins that double": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "replacing": "{{ ('a' * 1048576).replace('a', 'b' * 1048576) }}",
    "replacing as a filter": "{{ ('a' * 1048576) | replace('a', 'b' * 1048576) }}",
    "padding": "{{ 'a'.center(10000000000) }}",
    "padding as a filter": "{{ 'a' | center(10000000000) }}",
    "indenting": "{{ ('\n' * 1048576) | indent(1048576) }}",
    "a wide number": "{{ '%9999999999d' % 1 }}",
    "a wide number by name": "{{ '{:9999999999}'.format(1) }}",
    "a wide number with a star": "{{ '%*d' % (9999999999, 1) }}",
    "joining": "{{ ('a' * 1048576).join(['b'] * 1048576) }}",
    "batches": "{{ [1] | batch(10000000000, 0) | list }}",
    "deep JSON": "{{ [[1]] | tojson(indent=10000000000) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 1.0)
    start = time.perf_counter()
    with pytest.raises(PromptError) as caught:
        ChatTemplate(ESCAPES[name]).render(MESSAGES, SPECIAL)
    assert time.perf_counter() - start < 60  # without a bound: for ever
    assert "MemoryError" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_messages_stay_as_they_were() -> None:
    before = [dict(message) for message in MESSAGES]
    with pytest.raises(PromptError):
        ChatTemplate("{% set x = messages[0].pop('role') %}").render(MESSAGES, {})
    assert before == MESSAGES


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'a' ", "{% unknown %}", "{{ a.b. }}", "{% generation %}"])
def test_templates_that_are_none(source: str) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        ChatTemplate(source)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match="larger than"):
        ChatTemplate("x" * (chat_template.MAX_TEMPLATE_CHARS + 1))
    with pytest.raises(PromptError, match="too deeply"):
        ChatTemplate("{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}")
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARS", 1000)
    with pytest.raises(PromptError, match="more than 1000 characters"):
        ChatTemplate("{% for i in range(1001) %}x{% endfor %}").render(MESSAGES, {})
    assert len(ChatTemplate("{% for i in range(1000) %}x{% endfor %}").render(MESSAGES, {})) == 1000


def test_objects_do_not_reach_the_template() -> None:
    for thing in (Image.new("RGB", (2, 2)), Path("/"), object(), {1, 2}):
        with pytest.raises(PromptError, match="a message holds a"):
            ChatTemplate("{{ messages }}").render([{"role": "user", "content": thing}], {})

    class Loud(str):
        def shout(self) -> str:
            return "!"

    assert type(plain({"a": (Loud("b"), 1, 2.5, None, True)})["a"][0]) is str
    assert ChatTemplate("[{{ messages[0].role.shout }}]").render([{"role": Loud("user")}], {}) == "[]"
