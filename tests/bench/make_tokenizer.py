"""A tokenizer.json of any vocabulary size, for checkpoints with random weights.

Everything but vocabulary and merges (normalizer, pre-tokenizer, post-processor, decoder) is that of the golden
tokenizers, which have the published form. The tokens are plausible: the characters, the words that captions are made
of, then words put together from syllables. So a prompt has about as many tokens as with the published vocabulary, and
a decoded random caption looks like words.

Each function returns (tokenizer, ids): `ids` are the special ids that config.json has to name.
"""

import itertools
import json
import math
import pathlib

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"

WORDS = """a photo of an image the picture in on at to with and is are it this that there two three dog cat man woman
people person child boy girl bird horse sheep cow car bus train boat bicycle street road city house building room
table chair bed tree flower grass field beach water sea sky mountain snow food plate cup bottle red green blue white
black yellow brown small large old young sitting standing walking running riding holding wearing playing eating
looking next front behind near left right above below background color what how many who where which why does do
question answer short describe detail caption yes no Question Answer Short""".split()
ONSETS = "b d f g h k l m n p r s t v w z ch sh st tr".split()
VOWELS = "a e i o u".split()
SYLLABLES = [o + v for o in ONSETS for v in VOWELS]
CODAS = ["", "n", "r", "s", "l", "t", "m"]


def _template(folder):
    return json.loads((GOLDEN / folder / "tokenizer.json").read_text(encoding="utf-8"))


def _invented():
    """Words without end, short ones first."""
    for n in itertools.count(1):
        for parts in itertools.product(SYLLABLES, repeat=n):
            for coda in CODAS:
                yield "".join(parts) + coda


def _added(content, token_id):
    return {
        "id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }


class _Bpe:
    """Vocabulary and merges that grow together: every token is a byte or the merge of two tokens."""

    def __init__(self, alphabet, specials, limit):
        self.tokens = dict.fromkeys(specials)
        self.tokens.update(dict.fromkeys(alphabet))
        self.merges = []
        self.limit = limit

    def full(self):
        return len(self.tokens) >= self.limit

    def merge(self, left, right):
        if not self.full() and left + right not in self.tokens:
            self.tokens[left + right] = None
            self.merges.append([left, right])
        return left + right

    def word(self, word):
        """All prefixes of the word."""
        left = word[0]
        for c in word[1:]:
            left = self.merge(left, c)


def bpe(vocab_size):
    """OPT: byte-level BPE, newline as the end of a caption, <image> above the text tokens, unused rows behind
    (published: 39 of 50304)."""
    t = _template("opt_a")
    alphabet = [c for c in t["model"]["vocab"] if len(c) == 1]
    n_tokens = vocab_size - 39
    newline = "Ċ"
    b = _Bpe([c for c in alphabet if c != newline], ["<s>", "<pad>", "</s>", "<unk>"], n_tokens - 1)
    for w in WORDS:
        b.word("Ġ" + w)
    for w in _invented():
        if b.full():
            break
        b.word("Ġ" + w)
        b.word(w)
    order = list(b.tokens)
    at = len(order) - 146 if len(order) > 1000 else len(order)  # published: 50118 of 50265
    order.insert(at, newline)
    image = len(order)
    t["model"].update(vocab={token: i for i, token in enumerate(order)}, merges=b.merges)
    t["added_tokens"] = [_added(s, i) for i, s in enumerate(("<s>", "<pad>", "</s>", "<unk>"))] + [
        _added("<image>", image)
    ]
    return t, {"eos": order.index(newline), "image": image}


def unigram(vocab_size):
    """FlanT5: SentencePiece unigrams with Zipf's probabilities; published: 32100 pieces, then <image>, then unused
    rows up to 32128."""
    t = _template("t5_a")
    n_tokens = vocab_size - 28
    pieces = dict.fromkeys(["<pad>", "</s>", "<unk>", "▁"])
    pieces.update(dict.fromkeys(chr(c) for c in range(33, 127)))
    pieces.update(dict.fromkeys("▁" + w for w in WORDS))
    pieces.update(dict.fromkeys(SYLLABLES))
    for w in _invented():
        if len(pieces) >= n_tokens:
            break
        pieces["▁" + w] = None
        if len(pieces) < n_tokens and len(w) > 2:
            pieces[w] = None
    order = list(pieces)[:n_tokens]
    total = sum(1 / i for i in range(3, n_tokens + 1))
    t["model"].update(vocab=[[p, 0.0 if i < 3 else -math.log(i * total)] for i, p in enumerate(order)], unk_id=2)
    t["added_tokens"] = [_added(s, i) for i, s in enumerate(("<pad>", "</s>", "<unk>"))] + [_added("<image>", n_tokens)]
    return t, {"eos": 1, "image": n_tokens}


def wordpiece(vocab_size):
    """Q-Former text: WordPiece. At full size the special ids are those of bert-base-uncased; [DEC] is the last
    (published: 30522)."""
    t = _template("itm_c")
    n_tokens = vocab_size - 1
    at = (
        {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
        if n_tokens > 1000
        else dict(enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))
    )
    plain = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = dict.fromkeys(plain + ["##" + c for c in plain] + [w for w in WORDS if w.islower()])
    for w in _invented():
        if len(pieces) >= n_tokens:
            break
        pieces[w] = None
        pieces["##" + w] = None
    source, order = iter(pieces), []
    while len(order) < n_tokens:
        order.append(
            at[len(order)] if len(order) in at else f"[unused{len(order)}]" if len(order) < max(at) else next(source)
        )
    ids = {token: i for i, token in enumerate(order)}
    special = {s: ids[s] for s in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    t["model"]["vocab"] = ids
    t["added_tokens"] = [_added(s, i) for s, i in sorted(special.items(), key=lambda x: x[1])] + [
        _added("[DEC]", n_tokens)
    ]
    for name, entry in t["post_processor"]["special_tokens"].items():
        entry["ids"] = [special[name]]
    return t, {"pad": special["[PAD]"], "dec": n_tokens}
