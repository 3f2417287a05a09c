"""tinyplays: a built-in corpus of short plays, and the exact log-probability of each of them.

A small grammar of our own words writes plays laid out like Tiny Shakespeare. Every speaker keeps
one speaking style for a whole play; the style is never named, it only shows in the words.

Every decision is a `Rule`: alternatives that start with different letters, none a prefix of
another. So the text ahead always tells which one was taken, and the code that writes plays reads
them too: `_Author` asks a function `choose` at each decision; the one of `_sampler` draws, the one
of `_matcher` looks at the text. As the text so far fixes all decisions so far, the cost of one is
spread over its letters as their conditional probabilities: `surprisal[t]` is -ln p(text[t] |
text[:t]), and its mean is a floor that no model's expected loss in nats per character can beat.

How to read GRAMMAR: `name: alternatives`, between `|` or, in a list of mere words, spaces; equally
likely unless a number stands in front. `/` is a newline, `{name}` another rule, `{Name}` the same
with a capital, `{a name}` with its article. In a [style], its own rules go before the shared ones.
Choosing a `thing` makes it the topic `it`, choosing a `rhyme` leaves its fellows as `chime`, and
`you` is the person spoken to; as no rule knows these three, no alternative starts with them.
"""

import math
import random
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, chain, pairwise, takewhile
from typing import NamedTuple

import numpy as np

STYLES = ("courtly", "blunt", "nautical", "scholarly", "riddling")
GRAMMAR = """
common: acorn ant ape apple arch arm arrow badge bagel band barn basin basket bat bath bean bear
  beard bed bee bell bib bike bin bird boat book boot bow bowl broom bud bug bun cake camel candle
  card cart cat cave chair cheese chef clam claw cloak clock cloud clown coat cob coin colt cone
  cook cork cot crab crane crow crumb cub cup curl cushion dart den desk donkey door dot drum duck
  egg elk elm farm fence fiddle fig flag flea flute fork frog gem gnat goat grape hall ham hand hat
  hawk hedge hen hill hinge hive hoop horn horse imp ink jar jet jug kettledrum key kilt kite kitten
  knee lake lamb lamp lane leek leg lemon lid lime lion lip log map mat mill mole moon mop moth
  mouth mug nail nap nest nose oak oat onion oven owl pan park pea pear peg pen pet pie pillow pin
  pine pip plum pod pond pot puddle pup rake ring road robin rocket roof room rope rug sack saddle
  shed ship shirt shoe shop skate sled slug sofa song soup spoon star stool sun swing table tail tap
  tent tie tile toad toe top toy train tree trout tub twig urn van vase vest vine wall wand wasp web
  well wheel whistle wing worm wren yak
quality: able amber apt blue bold breezy brisk broad bumpy calm cheery clean clear cold cool cosy
  coy crisp curly damp dear deep deft dim dizzy drab dry dull dusty eager early empty even fast fine
  firm flat fluffy fond free fresh full furry fuzzy giddy glad good grand great green grey happy
  hard hazy high huge hungry icy idle jolly keen kind large late lazy lean light little long lost
  loud low lucky lush meek mellow merry mild muddy neat new nice nimble odd old open pale pink plain
  plump polite poor posh prim proud pure purple quaint quick quiet rare real red rich ripe rosy
  round sad safe shiny short shy silent silly slim slow sly small smart snug soft sour spare spotted
  stiff still striped sunny sure swift tall tame tart thin tidy tiny tired trim true vain vast warm
  wary wet whole wide wild wise young zany
deed: add aid alarm ask avoid await bake blame boil bore borrow brew bring build call carve chase
  cheer choose claim comb cook count cover crave cure dare dodge drain draw dread dust dye earn
  enjoy face fan fear feed fill find fold follow fool free gain get glue greet guard guide hear heat
  heed help hem hide hire hold hug ignore invent iron judge keep kick know lack lead learn leave
  lend lift like loan love mail make mark meet melt mend mind move mow nag name need note obey offer
  oil open owe pack paint pat pay peel pick plan plant play pull pump raise rate read repay rescue
  ring roll rule save scold season see seek send sew shake share shave show shun sing sip slice soak
  sort spare spot start steal stir suit sweep sweeten take tap tease tell test thank tickle time
  trace trade trail treat trust tug tune turn use visit wake want warn water weigh win wind wipe woo
  wrap
thing: 3 {odd} | 2 {common}
odd: accordion anvil apron artichoke bagpipe bathtub beehive bonnet candlestick corkscrew crumpet
  cuckoo cucumber custard doorknob dumpling eel egg-timer fruitcake gherkin gong haddock
  handkerchief harp hedgehog inkpot jam-jar kettle kipper ladder lantern marrow melon mitten
  mousetrap moustache nutcracker omelette ostrich oyster parsnip pepper-pot piano pickle pudding
  pumpkin rocking-chair sausage scarecrow snail snowman suitcase sundial tambourine teapot
  toast-rack trombone trumpet turnip umbrella waistcoat walnut weathercock wheelbarrow wig
place: attic bakery barn beach cave cellar corridor courtyard ferry forest garden harbour hilltop
  inn island kitchen library lighthouse market museum orchard palace pantry port rooftop tavern
  theatre valley village workshop
start: Al Ber Cor Dun El Fen Gil Hol Ing Jas Kes Lor Mil Nor Os Per Quin Ros Sel Tam Ul Ver Wen Zan
finish: abel bert don etta ina iver kin ley mund ora ric wick
det: 4 the | 2 my | 2 your | 2 this | 2 that | our | one | his | her | their | each | every
dets: all some two ten few most both many those nine
we: I we you they
may: can may must will shall might could would should
ever: always gladly hardly never often proudly seldom slowly soon still
me: me us him them everyone
in: above at behind beside by for from in near on over past under with
n: {noun} | {common}
j: {adjective} | {quality}
v: {verb} | {deed}
q: {j} {n} | {n}
qs: {j} {n}s | {n}s
np: {det} {q}
clause: 4 {det} {q} {does} | 3 {dets} {qs} {do} | 2 {we} {may} {v} {obj}
does: 8 {v}s {obj} | 2 {may} {v} {obj} | 1 {ever} {v}s {obj} | 1 is {j}
do: 8 {v} {obj} | 2 {may} {v} {obj} | 1 {ever} {v} {obj} | 1 are {j}
obj: 6 {np} | 1 {me}
scene: {A quality} {place}, with {a thing}.//
direction: Across the stage walks {a quality} {common}. | Thunder, but {quality}.
  | Offstage, {a common} falls. | Somewhere {a common} sings. | The {it} falls over.
  | All look at the {it}. | Music for {common}s. | Enter {a common}, which is ignored.
  | A pause, both {quality} and {quality}.
exeunt: 4 Exeunt. | 2 Exeunt, with the {it}. | 2 Exeunt, pursued by {a common}.
  | 1 Exeunt, in {quality} silence.
speech: {open}/{first}
first: 40 {line}/{second} | 2 {ask}// | 1 /
second: 30 {line}/{third} | 3 {ask}// | 1 /
third: 20 {line}/{more} | 3 {ask}// | 1 /
more: 10 {line}/{more} | 10 {ask}// | 1 /

[courtly]
noun: banquet bower carriage courtier crown dewdrop dove dream duchess feast fountain garland glove
  heart herald jewel king knight letter lute minstrel minuet mirror page palace peacock pearl plume
  promise queen ribbon rose secret sigh slipper smile sonnet sunbeam swan throne tower veil violet
adjective: dainty delicate fair fragrant gallant gentle golden gracious humble lofty loyal moonlit
  noble peerless radiant regal royal serene silken silver splendid stately sweet tender velvet
verb: admire adore adorn applaud beguile charm console court crown dazzle delight enchant entreat
  escort esteem exalt flatter forgive honour praise reward salute serve summon toast treasure
open: Sweet {you}, the {it} {does}; | My {j} {you}, {we} {v} the {it};
  | O {you}, thou {j} {n} among {n}s! | Good {you}, I {v} thee and thy {it}.
  | By my {n}, this {it} {does}. | Ah, the {it}! I {v} it {in} {np}.
  | Pray {v} the {it} {in} {np}; | Alas, {you}, thy {it} {does}.
line: 18 {Clause}, | 2 And {clause}; | But {clause}/{In} {np}; | Thy {q} {may} {v} {np},
  | Yea, I {v} thee {in} {np}, | For thee {we} {may} {v} {np}, | Sweeter than {np} is {np};
  | Ah me! {clause}! | Come, {v} my {q}, and {v} {np}; | No {n} so {j}, no {n} so {j}:
  | 'Tis sung that {clause}. | How {j} {det} {n}, how {j} {det} {n}!
ask: But, sweet {you}, who {v}s the {j} {thing}? | Canst thou {v} {a j} {thing}?
  | Speak, {j} {you}, of thy {j} {thing}. | Wilt thou, {you}, {v} {a j} {thing}?

[blunt]
noun: axe bag beet belt block bog bolt brick bucket bull cap chin chop clod clog cow crust ear fool
  gate grunt hog hut jaw lump mule neck oaf pig pit plank post rag ram rock rut shrug snack snore
  sock spud stew stone stump thumb tin wedge
adjective: bad bald big brash burnt cheap cracked crooked cross daft fake flimsy greasy grim grubby
  gruff hairy lumpy mouldy raw rotten rough rude soggy sore stale tough wonky wrong
verb: bin break butter chew chuck crack dig doubt drag drop dump eat grab grip hate lose lug nibble
  nudge park poke shove skip smell squeeze stop swap throw thump tip trip yank
open: No. The {it} {does}. | Bah. {Np} {v}s the {it}. | So what? {We} {v} the {it} {in} {np}.
  | Look. That {it} {does}. | What {it}? {We} {v} {qs}. | Right. {V} the {it}, {you}.
  | Oi, {you}. Do not {v} the {it}. | Fine. Keep your {j} {it}. | Enough. {V} {np}.
line: 12 {Clause}. | 2 Listen. {Clause}. | Give me {a n} and {a q}. | It is {a q}, not {a q}.
  | Do not {v} {np}. | First {v} {np}. Then {v} {np}. | Too {j}. Too {j}. Too {j}.
  | Nobody {v}s {np}. | Buy {a thing}, get {a j} {it}. | Good {n}, bad {n}, {j} {n}.
more: 3 {line}/{more} | 1 {ask}//
ask: Now, {you}: who {v}s my {j} {thing}? | Hand me the {j} {thing}. | Who let in the {j} {thing}?
  | Can you {v} {a thing} or not? | Well? {V} the {thing}, {you}.

[nautical]
noun: admiral anchor barnacle bosun breeze buoy cabin cannon captain chart cove crew deck dolphin
  frigate galley gull hammock herring hull island keel lobster mariner mast mermaid net oar pelican
  pier pirate porthole raft reef rudder sail sardine seal shark skipper sloop squall tide wave whale
adjective: bearded briny choppy coastal drifting eastern foamy foggy gusty leaky marooned northern
  pickled rolling rusty salty sandy seasick seaworthy southern stormy sunken tarry tidal western
  windy
verb: anchor bail berth board capsize caulk chart float furl hail haul hoist hook moor navigate net
  outrun outsail pilot plunder pursue row sail salvage scrub sight sink steer stow swab tow unload
open: Ahoy, {you}! The {it} {does}! | Aye, {you}, {we} {may} {v} the {it}!
  | Avast! {Dets} {qs} {v} the {it}! | Shiver my {qs}, the {it}! | Belay that {it}, ye {qs}!
  | All hands, {v} the {it} {in} {np}! | Blow me down, {a j} {it}! | Land ho! The {it} {does}!
  | Batten the {qs}! {V} the {it}!
line: 18 {Clause}! | 2 Yo ho, {clause}! | Haul up {np} and {v} {np},
  | Heave ho, ye {qs}, and {v} {np}; | 2 Aloft, {clause}, | Six {qs} to leeward {v} {np},
  | 2 Below, {clause}; | Never {v} {a n} {in} {a q}! | So {v} {det} {n}, ye {qs},
  | Ye {may} {v} {np} {in} {a q}, | Astern {we} {may} {v} {np}, | Arr, {clause}!
ask: Now, {you}, who {v}s the {j} {thing}? | Make fast {det} {j} {thing}! | What ho! {A j} {thing}!
  | Spy ye {a j} {thing}, {you}? | Who lashed {a thing} to the {n}?

[scholarly]
noun: adverb alphabet angle axiom beetle chapter chronicle circle comet comma cube decimal diagram
  doctor essay fern folio footnote fossil fraction inkwell lecture lemma margin maxim noun pendulum
  planet premise prism proof pupil quill scholar scroll sphere syllable theorem treatise triangle
  tutor verb vowel
adjective: abstract acute archaic bookish concise curious diligent empirical erudite explicit finite
  implicit infinite inky learned logical marginal oblique obscure obtuse pedantic plausible prime
  prudent rational subtle tacit valid verbose
verb: annotate append calculate cite compare conjecture consult debate deduce define denote derive
  describe dissect edit examine explain expound infer interpret measure observe ponder posit presume
  prove quote refute review revise
open: Strictly, {you}, the {it} {does}. | I concede, {you}, the {it} {does}.
  | According to {np}, {we} {v} the {it}. | Let us {v} the {it} {in} {np}.
  | Consider, {you}, the {it} {in} {np}. | In theory the {it} {does}.
  | Define the {it}, {you}, as {a q}. | Quite so: {np} {v}s the {it}.
line: 18 {Clause}; | 2 Item: {clause}; | 2 Ergo, {clause}. | If {clause},/Then {clause}.
  | Thus {we} {may} {v} {np}, | Certain {qs} {v} {obj}, yet none {v} {np};
  | By definition {np} is {j}, | 2 Whereas {clause}, | Scholars {may} {v} {np} or {v} {np},
  | Equally, {np} and {np} are {j}; | Hence {clause} {in} {np};
ask: Question: what {v}s {a j} {thing}? | Can one {v} {a j} {thing}? Discuss.
  | Pray explain why {a thing} {may} {v} {np}. | Next, let us {v} the {j} {thing}.
  | But who, {you}, {v}s the {j} {thing}?

[riddling]
noun: bauble bubble cinder cobweb cuckoo ember feather ghost gnome goblin icicle jester juggler lock
  loom magpie mask maze mushroom needle night phantom pixie puzzle raindrop raven riddle shadow
  snowflake spark spider sprite stranger thorn thread tomorrow twin whisker wizard
adjective: backward borrowed bottomless cryptic eerie endless faceless forgotten half-eaten hidden
  hollow inside-out invisible mirrored moonless nameless peculiar secret sideways tangled toothless
  twisted uncanny upside-down vanishing whispering
verb: become conceal deceive devour divide double gather halve haunt imitate invert juggle knot
  mimic mirror outlive outwit puzzle reverse scatter shadow tangle trick unlock unpick unravel weave
rhyme: moon spoon tune dune noon | sea bee tree key flea | day bay hay tray play
  | night light kite knight | hat cat mat bat gnat | snow crow toe glow | sky pie fly tie
  | ring king wing string spring | wall shawl hall squall | bear pear chair stair hare
  | rose nose hose prose | wheel eel meal heel | goat boat coat moat note
  | bed head shed bread thread | clock sock lock rock flock
open: Riddle me: who {v}s the {it} {in} {np}? | Guess why {np} {v}s the {it}.
  | Hush, {you}! the {it} {does}. | Is the {it} {a q} or {a q}?
  | Round the {it} {we} {v} {qs}. | I am not the {it}, yet I {v} {np}.
  | Neither {np} nor {np} is the {it}. | Turn the {it} about: {a j} {n}!
line: 10 {Np} {v}s {det} {j} {rhyme},/{Np} {v}s {det} {j} {chime}.
  | What {v}s {np} {in} the {rhyme}/And {v}s {np} {in} the {chime}?
  | Ask if {clause}, ask the {rhyme},/Or never ask {a j} {chime}.
  | A score of {qs} {v} {det} {rhyme},/Ten {qs} {v} {a j} {chime}.
  | As {j} as {np} {in} the {rhyme},/As {j} as {np} {in} the {chime};
  | No {q} {may} {v} {det} {rhyme}/Until {np} {v}s the {chime}.
  | Oh, the more {we} {v} {det} {rhyme},/Oh, the less {we} {v} {det} {chime}.
  | Who {may} {v} {np} {in} {det} {rhyme},/{In} {det} {q}, {in} {det} {chime}?
  | Not {np}, not {det} {j} {rhyme},/But {np} {v}s {det} {chime}.
first: 12 {line}/{third} | 2 {ask}// | 1 /
third: 5 {line}/{more} | 3 {ask}// | 1 /
ask: Now guess, {you}: who {v}s my {j} {thing}? | Answer me: why {may} {a thing} {v} {np}?
  | How many {qs} fit in {a j} {thing}? | Find me {np} inside {a j} {thing}.
  | Which {q} dreams it is {a j} {thing}?
"""


_ROMAN = ("", "I", "II", "III")


# A slot takes along the character after it: "cat " and "cattle " can be told apart where "cat" and
# "cattle" can't. What refers back leaves no choice, or one of rhymes, and needs no such help.
_SLOT = re.compile(r"(\{(?:you|it|chime)\}|\{[^}]*\}[^{]?)")


@dataclass(frozen=True, eq=False)
class Plays:
    """Whole plays, with what the grammar knows about each of their T characters.

    text: the T characters. surprisal: (T,) float64, -ln p(character | all before it) in nats; the
    sum is -ln p(text). style: (T,) int8, index in STYLES of the speech that the character belongs
    to, from its first word to the blank line after it; -1 for names, headings and directions.
    """

    text: str
    surprisal: np.ndarray
    style: np.ndarray

    def floor(self, start: int = 0, stop: int | None = None) -> float:
        """Mean surprisal of text[start:stop] in nats per character; ValueError if it is empty."""
        part = self.surprisal[start:stop]
        if not len(part):
            raise ValueError(f"no characters in text[{start}:{stop}] of {len(self.text)}")
        return float(part.mean())


class _Alternative(NamedTuple):
    weight: float  # relative to the other alternatives of its rule
    head: str  # the text it starts with
    tail: tuple  # what it goes on with: rules, and slots "{name}" with the character that follows
    memory: dict  # what it leaves for later text to refer back to


class Rule:
    """One decision between alternatives; ValueError if one's head is a prefix of another's."""

    def __init__(self, alternatives: list[_Alternative]):
        for a, b in pairwise(sorted(alternative.head for alternative in alternatives)):
            if b.startswith(a):
                raise ValueError(f"ambiguous grammar: {a!r} starts {b!r}")
        self.alternatives = alternatives
        self.cumulative = list(accumulate(a.weight for a in alternatives))
        self.costs = self._letter_costs()
        self.index = {a.head: i for i, a in enumerate(alternatives)}
        self.lengths = sorted({len(head) for head in self.index})

    def _letter_costs(self) -> list[tuple[float, ...]]:
        """For each head, the surprisal in nats of each letter given the letters before it."""
        prefixes = [("", *accumulate(a.head)) for a in self.alternatives]
        mass = defaultdict(float)  # prefix -> total weight of the heads that start with it
        for alternative, starts in zip(self.alternatives, prefixes, strict=True):
            for start in starts:
                mass[start] += alternative.weight
        masses = ([mass[start] for start in starts] for starts in prefixes)
        return [tuple(math.log(a / b) for a, b in pairwise(each)) for each in masses]


Choose = Callable[[Rule], int]


@cache
def _sections() -> dict[str, dict[str, str]]:
    """GRAMMAR as {style: {name: alternatives}}; the shared rules are those of style ""."""
    sections, style = {"": {}}, ""
    for entry in re.split(r"\n(?=\S)", GRAMMAR.strip()):
        name, _, alternatives = entry.partition(":")
        if entry.startswith("["):
            style = entry.strip("[]\n")
            sections[style] = {}
        else:
            sections[style][name] = " ".join(alternatives.split())
    return sections


@lru_cache(maxsize=4096)
def _words(*words: str) -> Rule:
    """One of these words, equally likely; of a single word, the rule that just says it."""
    return Rule([_Alternative(1, word, (), {}) for word in words])


def _begin(rule: Rule, weight: float, tail: tuple = (), **memory) -> list[_Alternative]:
    """The alternatives of `rule`, together of this weight, each with more to follow or keep."""
    weight /= rule.cumulative[-1]
    return [
        _Alternative(weight * w, head, rest + tail, kept | memory)
        for w, head, rest, kept in rule.alternatives
    ]


def _template(template: str, style: str) -> list[_Alternative]:
    """The alternative of one template; where it starts with a {name}, those of that rule."""
    weight, text = re.fullmatch(r"(\d*) ?(.*)", template, re.DOTALL).groups()
    first, *rest = (part for part in re.split(_SLOT, text.replace("/", "\n")) if part)
    tail = tuple(part if part.startswith("{") else _words(part) for part in rest)
    if first.startswith("{"):
        return _begin(_rule(first, style), float(weight or 1), tail)
    return [_Alternative(float(weight or 1), first, tail, {})]


def _rhymes(families: str, follow: str) -> list[_Alternative]:
    """Every rhyming word; the others of its family are kept as {chime}."""
    return [
        _Alternative(1, word + follow, (), {"{chime}": _words(*(w for w in family if w != word))})
        for family in map(str.split, families.split("|"))
        for word in family
    ]


def _topic(head: str, follow: str) -> dict[str, Rule]:
    """What a thing leaves in memory: itself as {it}."""
    return {"{it}": _words(head.removesuffix(follow))}


def _article(head: str) -> str:
    return f"an {head}" if head[0] in "aeiou" else f"a {head}"


def _capital(head: str) -> str:
    return head[0].upper() + head[1:]


@cache
def _rule(slot: str, style: str) -> Rule:
    """The rule of a "{name}" and what follows it, in a speech of this style ("": outside)."""
    for plain, change in ((slot.lower(), _capital), (slot.replace("{a ", "{"), _article)):
        if plain != slot:
            alternatives = _rule(plain, style).alternatives
            return Rule([a._replace(head=change(a.head)) for a in alternatives])
    name, follow = slot[1:].split("}")
    source = _sections()[style].get(name) or _sections()[""][name]
    if name == "rhyme":
        return Rule(_rhymes(source, follow))
    parts = source.split("|" if "|" in source or "{" in source else " ")
    alternatives = [a for part in parts for a in _template(part.strip() + follow, style)]
    if name == "thing":
        alternatives = [a._replace(memory=_topic(a.head, follow)) for a in alternatives]
    return Rule(alternatives)


@cache
def _speech(styles: tuple[str, ...]) -> Rule:
    """A speech by someone who may be of any of these styles: its first words show which."""
    parts = [_begin(_rule("{speech}", style), 1, style=style) for style in styles]
    return Rule(list(chain.from_iterable(parts)))


@lru_cache(maxsize=4096)
def _turn(names: tuple[str, ...], may_end: bool) -> Rule:
    """Who speaks next; a stage direction may come before that, or the scene may end."""
    parts = [_Alternative(9 / len(names), f"{n.upper()}:\n", (), {"speaker": n}) for n in names]
    parts += _begin(_rule("{direction}\n\n", ""), 1, ("{turn}",))
    return Rule(parts + may_end * _begin(_rule("{exeunt}\n\n", ""), 1.5, speaker=None))


@cache
def _next_part(act: int, scene: int) -> Rule:
    """What follows a scene: there are two or three acts of up to three scenes."""
    weights = {"SCENE": 2 * (scene < 3), "ACT": 2 * (act < 3), "Here ends": int(act > 1)}
    return Rule([_Alternative(w, head, (), {}) for head, w in weights.items() if w])


class _Author:
    """Derives plays, asking `choose` at every decision for the index of an alternative."""

    def __init__(self, choose: Choose):
        self.choose = choose
        self.trace = []  # per decision: text, surprisal of its letters, style
        self.memory = {"style": ""}  # what the text may refer back to, as rules by name

    def write(self, symbol: Rule | str) -> str:
        """Write a rule, or the rule of this name, to its end; return the head it begins with."""
        if isinstance(symbol, str):
            symbol = self.memory.get(symbol) or _rule(symbol, self.memory["style"])
        choice = self.choose(symbol)
        _, head, tail, memory = symbol.alternatives[choice]
        self.memory |= memory
        self.trace.append((head, symbol.costs[choice], self.memory["style"]))
        for part in tail:
            self.write(part)
        return head

    def say(self, text: str) -> None:
        """Write a text that leaves no choice."""
        self.write(_words(text))

    def roster(self, pick: Callable[[list[str]], str], least: int, most: int) -> list[str]:
        """Write "A, B and C": `least` to `most` names, each by `pick(the names before it)`."""
        names, joint = [pick([])], ""
        while joint != " and ":
            n = len(names) + 1
            joint = self.write(_words(*[", "] * (n < most), *[" and "] * (n >= least)))
            names.append(pick(names))
        return names

    def new_name(self, names: list[str]) -> str:
        """Write a name with another beginning than these."""
        starts = _sections()[""]["start"].split()
        free = [start for start in starts if not any(name.startswith(start) for name in names)]
        return self.write(_words(*free)) + self.write("{finish}")

    def play(self) -> None:
        """Write one play, from "Here begins" to "Here ends"."""
        self.prologue()
        act, scene, part = 0, 0, "ACT"
        self.say("ACT")
        while part != "Here ends":
            if part == "ACT":
                act, scene = act + 1, 0
                self.say(f" {_ROMAN[act]}, of the {self.title}.\n\nSCENE")
            scene += 1
            self.say(f" {_ROMAN[scene]}. ")
            self.scene()
            part = self.write(_next_part(act, scene))
        self.say(f" the tale of the {self.title}.\n\n\n")

    def prologue(self) -> None:
        """Write what the play is called and who is in it."""
        self.say("Here begins the tale of the ")
        self.title = self.write("{quality} ") + self.write("{thing},").rstrip(",")
        self.say("\nwith ")
        self.cast, self.styles = self.roster(self.new_name, 3, 4), {}
        self.say(".\n\n")

    def scene(self) -> None:
        """Write a scene: two or three of the cast enter and speak, at least four times."""
        self.write("{scene}")
        self.say("Enter ")
        present = self.roster(self.old_name, 2, 3)
        self.say(".\n\n")
        speaker, listener, speeches = self.turn(present, may_end=False), None, 0
        while speaker:
            others = [name for name in present if name != speaker]
            self.speech(speaker, listener or others[0])
            speeches += 1
            listener, speaker = speaker, self.turn(others, may_end=speeches >= 4)

    def old_name(self, names: list[str]) -> str:
        """Write the name of one of the cast who is not among these."""
        return self.write(_words(*(name for name in self.cast if name not in names)))

    def turn(self, names: list[str], may_end: bool) -> str | None:
        """Write whose turn it is, one of these names; None if the scene ends."""
        self.memory["{turn}"] = _turn(tuple(names), may_end)
        self.write("{turn}")
        return self.memory["speaker"]

    def speech(self, speaker: str, listener: str) -> None:
        """Write a speech; the first of a speaker shows his style, another than his fellows'."""
        self.memory["{you}"] = _words(listener)
        free = tuple(style for style in STYLES if style not in self.styles.values())
        self.write(_speech((self.styles[speaker],) if speaker in self.styles else free))
        self.styles[speaker], self.memory["style"] = self.memory["style"], ""


def _sampler(seed: int) -> Choose:
    """A `choose` that draws; only `random.Random.random`, the same on every platform."""
    draw = random.Random(seed).random

    def choose(rule: Rule) -> int:
        last = len(rule.cumulative) - 1
        return bisect(rule.cumulative, draw() * rule.cumulative[-1], 0, last) if last else 0

    return choose


def _agreement(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _matcher(text: str) -> Choose:
    """A `choose` that reads: the alternative whose head comes next in the text."""
    position = 0

    def choose(rule: Rule) -> int:
        nonlocal position
        for length in rule.lengths:
            choice = rule.index.get(text[position : position + length])
            if choice is not None:
                position += length
                return choice
        position += max(
            _agreement(text[position : position + len(head)], head) for head in rule.index
        )
        found = repr(text[position : position + 20]) if position < len(text) else "the end"
        raise ValueError(f"no tinyplay goes on with {found} at position {position}")

    return choose


def _derive(choose: Choose, n_chars: int) -> Plays:
    """Whole plays, one after another, until there are at least this many characters."""
    author, read, length = _Author(choose), 0, 0
    while not length or length < n_chars:
        author.play()
        length += sum(len(text) for text, *_ in author.trace[read:])
        read = len(author.trace)
    texts, costs, styles = zip(*author.trace, strict=True)
    surprisal = np.fromiter(chain.from_iterable(costs), dtype=np.float64, count=length)
    index = {style: i for i, style in enumerate(("", *STYLES), start=-1)}
    style = np.array([index[style] for style in styles], dtype=np.int8)
    return Plays("".join(texts), surprisal, np.repeat(style, [len(text) for text in texts]))


def write_plays(n_chars: int = 1_000_000, seed: int = 1337) -> Plays:
    """Whole plays, as many as it takes for at least `n_chars` characters; the same for a seed.

    Where to stop follows from the text, so it adds nothing to the log-probability.
    ValueError if n_chars is below 1.
    """
    if n_chars < 1:
        raise ValueError(f"n_chars={n_chars} must be at least 1")
    return _derive(_sampler(seed), n_chars)


def parse(text: str) -> Plays:
    """Read whole plays back: every decision, and so surprisal and style, from the text alone.

    ValueError with the position of the first character that no play could have there; a text that
    ends within a play goes wrong at its end.
    """
    return _derive(_matcher(text), len(text))


def log_probability(text: str) -> float:
    """ln p(text) in nats under the grammar; ValueError as in `parse` if it can't be written."""
    return -float(parse(text).surprisal.sum())
