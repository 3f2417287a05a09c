"""tinyplays: a built-in corpus of short plays, and the exact log-probability of every one of them.

A small grammar of our own words writes plays laid out like Tiny Shakespeare. Each speaker keeps
one speaking style for a whole play; the style is never printed, it only shows in the words.

Every decision is a `Rule`: alternatives that start with different letters, none a prefix of
another. So the text ahead always tells which alternative was taken, and the code that writes a play
can read it back: `_Author` asks a function `choose(rule)` at each decision; `_sampler` rolls dice,
`_matcher` looks at the text. As the past text fixes all past decisions, the cost of a rule can be
spread over its letters as true conditional probabilities: `surprisal[t]` is -ln p(text[t] |
text[:t]), and its mean is a floor that no model's expected loss in nats per character can beat.

How to read GRAMMAR: `name: alternatives`, split at `|`, or at spaces where there is no `|` (a word
list); equally likely unless a number stands in front. `/` is a newline, `{name}` another rule,
`{Name}` the same capitalised, `{a name}` with its article. A rule of a [style] goes before a shared
one. Choosing a `thing` makes it the topic `it`; a word of `rhyme` leaves its rhymes in `chime`;
`you` is the person spoken to and `title` the play's. An alternative can't start with these four.
"""

import math
import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np

STYLES = ("courtly", "blunt", "nautical", "scholarly", "riddling")

GRAMMAR = """
common: acorn apple barrel basket bean beard bell bench bird biscuit blanket boot bottle bowl bridge
  broom bucket button cabbage cake candle carrot cart cat chair cheese clock cloak cloud comb cork
  cousin cradle cricket cup curtain cushion dog donkey door drum duck egg elbow fence fiddle frog
  goat hat hedge hen hill hinge hook horn horse house jar jug key kitten knee ladle lamb lemon lid
  meadow mill mole moon moth mug nail neighbour nose nut onion oven owl pan pebble pie pigeon pillow
  pipe plate plum pocket pond pot puddle pump quilt rabbit rake river robin rope sack saddle sandal
  shed shoe sister song spade sparrow spoon stair stool stove tailor table thimble toad toe tree
  trout trunk tub uncle violin wagon wall weasel wheel whistle widow window wing worm yard
quality: amber ancient blue bold brave bright brisk brown calm clean clever cold cosy crisp curly
  damp dark deep dim dizzy dry dull dusty early empty fine flat fond fresh full giddy glad grand
  great green grey happy heavy hollow hungry idle jolly kind large lazy little loud lucky mellow
  merry mild modest muddy narrow neat nimble odd old pale patient plain plump pretty proud purple
  quick quiet rare red ripe rosy round rusty shiny short shy silent silly simple sleepy slow small
  smooth snug soft sour spare spotted steady stiff strange striped sunny tall tame thin tidy tiny
  tired warm wet white wide wild wise yellow young
deed: ask avoid await bake bend blame boil borrow bring call chase cheer choose count cover dread
  fear feed find follow greet guard guide hear help hide hold hug ignore invent keep kick know lead
  lend lift like mend mind move need notice obey offer own paint prefer pull raise remember rescue
  respect rub save scold seek sell shake share shun stir suit tease thank tickle trust turn want
  warm warn weigh wipe
thing: accordion anvil apron artichoke bagpipe bathtub beehive bonnet candlestick corkscrew crumpet
  cucumber cuckoo custard doorknob dumpling eel egg-timer fruitcake gherkin gong haddock handkerchief
  harp hedgehog inkpot jam-jar kettle kipper ladder lantern marrow melon mitten mousetrap moustache
  nutcracker omelette ostrich oyster parsnip pepper-pot piano pickle pudding pumpkin rocking-chair
  sausage scarecrow snail snowman suitcase sundial tambourine teapot toast-rack trombone trumpet
  turnip umbrella waistcoat walnut weathercock wheelbarrow wig
place: attic bakery barn beach cave cellar corridor courtyard ferry forest garden harbour hilltop
  inn island kitchen library lighthouse market museum orchard palace pantry port rooftop tavern
  theatre valley village workshop
start: Al Ber Cor Dun El Fen Gil Hol Ing Jas Kes Lor Mil Nor Os Per Quin Ros Sel Tam Ul Ver Wil Zan
finish: wick ley bert ina mund etta kin ora ric don abel iver
det: 4 the | 2 my | 2 your | 1 this | 1 that | 1 our | 1 one | 1 every | 1 no
dets: all | some | two | ten | few | most | both | many | those
noun: {common}
n: 3 {noun} | 2 {common}
j: 3 {adjective} | 2 {quality}
v: 3 {verb} | 2 {deed}
q: 3 {j} {n} | 2 {n}
qs: 3 {j} {n}s | 2 {n}s
np: {det} {q}
clause: 3 {det} {q} {v}s {np} | 2 {dets} {qs} {v} {np}
speech: {open}/{more}
more: 7 {line}/{more} | 4 {ask}// | 1 /
scene: {A quality} {place}, with {a thing}.//
direction: {A quality} {common} crosses the stage. | Thunder, but {quality}. | Drops {a common}.
  | Somewhere {a common} sings. | The {it} falls over. | All look at the {it}. | Music for {common}s.
  | Enter {a common}, which is ignored. | A pause, both {quality} and {quality}.
exeunt: 4 Exeunt. | 2 Exeunt, with the {it}. | 2 Exeunt, pursued by {a common}.
  | 1 Exeunt, in {quality} silence.

[courtly]
noun: banquet bower carriage courtier crown dewdrop dove dream feast fountain garland glove goblet
  heart herald jewel king knight letter lute minstrel minuet mirror nightingale page palace peacock
  pearl plume promise queen ribbon rose secret sigh slipper smile sonnet sunbeam swan terrace throne
  token tower veil violet whisper
adjective: amorous courteous dainty delicate exquisite fair fragrant gallant gentle golden gracious
  humble lofty loyal moonlit noble peerless perfumed radiant regal royal serene silken silver
  splendid spotless stately sweet tender velvet
verb: admire adore adorn applaud beguile charm console court dazzle delight enchant entreat escort
  esteem exalt favour flatter forgive honour inspire praise reward salute serve summon toast
  treasure welcome
open: Sweet {you}, the {it} is {j}; | My {j} {you}, I {v} the {it};
  | O {you}, thou {n} among {n}s! thy {it}! | Good {you}, I {v} thee and thy {it}.
  | By my {n}, dear {you}, this {it} {v}s me. | Ah, the {it}! I {v} it as I {v} thee.
  | Pray, {j} {you}, {v} the {it}. | Permit me, {you}, to {v} thy {j} {it}.
  | Alas, {you}, thy {it} {v}s {np}. | Thy {it}, fair {you}, is {a j} {n};
line: I {v} thee more than {np}, | Thy {n} is like {a j} {n}, | Let {dets} {qs} {v} {np},
  | For love of thee {clause}, | Sweeter than {a j} {n} is {np}; | My {n} is thine, and {np};
  | Ah me! {clause}, | Come, {v} my {n}, and {v} {np}; | No {n} so {j}, no {n} so {j}:
  | Upon my knee I {v} thy {j} {n}; | How {j} the {n}, how {j} the {n}! | 'Tis sung that {clause}.
ask: But, sweet {you}, who keeps the {thing}? | And canst thou {v} {a thing}?
  | Speak to me now of thy {j} {thing}. | Whither, O whither, is my {thing}?
  | I lay before thee this {j} {thing}. | Wilt thou, {you}, accept {a thing}?

[blunt]
noun: axe bag barn bed belt bog bolt bone brick bull cap chin chop clod clog cow crust ear fool gate
  grunt ham hog hut jaw log lump mule nap neck oaf pit plank post rag ram rock rut shrug snack snore
  sock spud stew stone stump thumb tin wedge
adjective: bad bald bent big blunt burnt cheap cracked crooked cross daft fake flimsy greasy grim
  grubby gruff hairy lumpy mouldy raw rotten rough scruffy smelly soggy sore stale stubborn tough
  wonky wrong
verb: bin bite block break burn chew chuck crack cut dig doubt drag drop dump eat grab grip hate
  lose lug nudge poke shove skip smell squeeze stop swallow swap throw thump tip trip yank
open: No. The {it} is {j}. | Bah. {Np} {v}s the {it}. | So what, {you}? I {v} the {it}.
  | Look here, {you}. That {it} is {j}. | What {it}? I {v} {n}s. | Right. {V} the {it}, {you}.
  | Well, {you}, the {it} is no {n}. | Oi, {you}. Do not {v} the {it}. | Fine. Keep your {j} {it}.
  | Enough of the {it}. {V} {a n}.
line: I {v} {n}s. I {v} {np}. | Your {n} is {j}. Mine is {j}. | Listen. {Clause}.
  | Give me {a n} and {a j} {n}. | It is {a j} {n}, not {a n}. | Do not {v} my {j} {n}.
  | First {v} the {n}. Then {v} {np}. | Too {j}. Too {j}. And it {v}s {n}s.
  | You {v} {n}s, {you}. I {v} {n}s. | My {thing} is my {it}. That is that.
  | {J} {n}s, {j} {n}s. I {v} the lot. | Nobody {v}s {a n}. Nobody {v}s {np}.
ask: Now, {you}: where is my {thing}? | Hand me the {thing}. | Who let in the {j} {thing}?
  | All I want is {a thing}. | Can you {v} {a thing} or not? | Then explain the {thing}, {you}.

[nautical]
noun: admiral anchor barnacle bilge bosun breeze buoy cabin cannon captain chart cove crab crew deck
  dolphin frigate gale galley gull hammock herring hull island keel lagoon lobster mariner mast
  mermaid net oar pelican pier pirate porthole raft reef rudder sail sardine schooner seal shark
  skipper sloop squall tempest tide wave whale whirlpool
adjective: anchored barnacled bearded briny buoyant choppy coastal creaking drifting eastern foamy
  foggy gusty landlocked leaky marooned northern pickled rolling rudderless salty sandy seafaring
  seasick seaworthy sodden southern stormy sunken tarry tidal weathered western windy
verb: anchor bail berth board capsize careen caulk chart ferret float furl hail haul hoist hook moor
  navigate net outrun outsail patrol plunder pursue row sail salvage scrub sight signal sink splice
  steer stow swab tow unfurl unload
open: Ahoy, {you}! The {it} is {j}! | Aye, {you}, I {v} the {it}. | Avast! {Dets} {n}s {v} the {it}!
  | Shiver my {n}s, {you}, the {it}! | Belay that {it}, ye {j} {n}! | All hands, {v} the {it}!
  | Blow me down, {you}, what {a j} {it}! | Land ho! The {it} {v}s {np}!
  | Batten the {n}s, {you}! {V} the {it}! | Hark ye, {you}: a wave {v}s the {it}!
line: Haul up {np} and {v} {np}, | Heave ho, me {n}s, and {v} {np}; | We {v} {np} by {a j} {n},
  | Off the port bow {clause}, | Nine {n}s to leeward {v} {np}, | Ye can {v} {a n} with {a j} {n},
  | 'Tis {a j} {n} that {v}s {np}, | Never {v} {a n} in {a j} {n}! | Yo ho, the {n}s {v} {np}!
  | So {v} the {n}, ye {j} {n}s, | Three {n}s down lies {a j} {n}, | Aloft, {clause}!
ask: Now, {you}, where lies the {thing}? | Make fast that {j} {thing}, {you}!
  | I sailed nine seas for {a thing}! | Who lashed {a thing} to the {n}?
  | Spy ye {a thing} to starboard? | Ready the {thing}, ye {n}s!

[scholarly]
noun: adverb alphabet angle astrolabe axiom beetle chapter chronicle circle comet comma conclusion
  cube decimal diagram doctor doctrine essay fern folio footnote fossil fraction inkwell lecture
  lemma manuscript margin maxim method noun parchment pendulum philosopher planet premise prism
  proof pupil quill scholar scroll specimen sphere syllable syllogism theorem treatise triangle
  tutor verb volume vowel
adjective: abstract acute analytic apocryphal archaic axiomatic bookish classical concise curious
  diligent doctoral empirical erudite explicit finite hexagonal implicit infinite inky learned
  logical marginal oblique obscure obtuse pedantic pensive perpetual plausible prime prudent
  rational spherical subtle tacit valid verbose
verb: annotate append calculate cite compare conjecture consult contradict debate deduce define
  denote derive describe dissect edit enumerate examine explain expound formulate illuminate
  indicate infer interpret measure observe paraphrase ponder posit presume prove quote refute
  resolve review revise translate
open: Strictly, {you}, the {it} is {j}. | I concede, {you}, that the {it} is {j}.
  | According to {np}, the {it} {v}s {n}s. | Let us {v} the {it}, {you}.
  | Consider, {you}, the {j} {it}. | In theory, {you}, the {it} {v}s {np}.
  | It follows that the {it} {v}s {n}s. | Define the {it}, {you}, as {a j} {n}.
  | Of the {it}, {you}, I {v} but {a n}. | Quite so: the {it} is {a j} {n}.
line: Item: {clause}; | Ergo, {clause}. | If {clause},/Then {clause}. | We therefore {v} {np},
  | Some {n}s {v} {a n}, yet none {v} {np}; | By definition {np} is {j},
  | Observe that {clause}. | The {j} {n} is but {a j} {n}; | One may {v} {np} or {v} {np},
  | Whereas the {n} {v}s {np}, | Both the {n} and the {n} are {j}; | My {n} on {j} {n}s agrees:
ask: Question, {you}: what is {a thing}? | Can one {v} {a thing}? Discuss.
  | Hence I ask you, {you}: why {a thing}? | Next, let us {v} the {j} {thing}.
  | But who, {you}, has weighed the {thing}? | I refer you, {you}, to the {thing}.

[riddling]
noun: bat bauble bubble cinder cobweb coin ember feather ghost gnome goblin icicle jester juggler
  lock loom magpie mask maze mushroom needle night phantom pixie puzzle raindrop rattle raven riddle
  shadow snowflake spark spider sprite stranger thorn thread toadstool tomorrow twin whisker wizard
  yesterday
adjective: backward borrowed bottomless cryptic eerie elusive endless faceless flickering footless
  forgotten half-eaten haunted hidden inside-out invisible masked mirrored mismatched moonless
  nameless peculiar secret sideways tangled toothless twisted uncanny unspoken upside-down vanishing
  wandering whispering wingless
verb: become conceal deceive devour dissolve divide double encircle entangle gather halve haunt
  imitate invert juggle knot mimic mirror outlive outnumber outwit puzzle reverse scatter shadow
  tangle trick unlock unpick unravel weave
rhyme: moon spoon tune dune noon | sea bee tree key flea | day bay hay tray play
  | night light kite knight | hat cat mat bat gnat | snow crow toe glow | sky pie fly tie
  | ring king wing string spring | wall shawl hall squall | bear pear chair stair hare
  | rose nose hose prose | wheel eel meal heel | goat boat coat moat note
  | bed head shed bread thread | clock sock lock rock flock
open: Riddle me, {you}: who {v}s the {it}? | Guess, {you}: why is the {it} {j}?
  | Hush, {you}! the {it} {v}s {np}. | Is the {it} {a n} or {a j} {n}?
  | Round and round the {it} {v}s {n}s. | I am not the {it}, yet I {v} it.
  | Once upon {a n} the {it} was {j}. | Neither {n} nor {n} is the {it}.
  | Turn the {it} about: {a j} {n}! | Whose {it} {v}s {n}s at night?
line: What {v}s {np} by the {rhyme}/And {v}s {np} in the {chime}?
  | I {v} {a n}, I {v} the {rhyme},/Yet never {v} {a j} {chime}.
  | Two {n}s {v} {a j} {rhyme},/Ten {n}s {v} {a j} {chime}.
  | As {j} as {a n} in the {rhyme},/As {j} as {a n} in the {chime};
  | No {n} may {v} the {j} {rhyme}/Until {a n} {v}s the {chime}.
  | The more I {v} the {j} {rhyme},/The less I {v} the {chime}.
  | By day it {v}s {a j} {rhyme},/By night it {v}s the {chime}.
  | Take {a n} from {a j} {rhyme}:/What is left? The {j} {chime}!
  | It has {n}s, but no {rhyme};/It {v}s {n}s, but not the {chime}.
ask: Now guess, {you}: who {v}s my {thing}? | Answer me, {you}: why {a thing}?
  | How many {n}s fit in {a thing}? | Find me the {n} inside {a thing}.
  | My last riddle, {you}, is {a thing}. | Which {n} dreams it is {a thing}?
"""
ROMAN = ("", "I", "II", "III")


@dataclass(frozen=True)
class Plays:
    """Whole plays, with what the grammar knows about each of their T characters.

    text: T characters; surprisal: (T,) float64, -ln p(character | all before it) in nats, so that
    its sum is -ln p(text); style: (T,) int8, the index in STYLES of the speech the character
    belongs to (from its first word to the blank line after it), -1 elsewhere.
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
    weight: float
    head: str  # the literal text it starts with
    tail: tuple  # what follows: rules, or names of rules
    memory: dict  # what later text may refer back to


class Rule:
    """One decision: alternatives of which no head is a prefix of another, or ValueError."""

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
        mass = defaultdict(float)  # prefix -> total weight of the heads that start with it
        for weight, head, *_ in self.alternatives:
            for n in range(len(head) + 1):
                mass[head[:n]] += weight
        return [
            tuple(math.log(mass[head[:n]] / mass[head[: n + 1]]) for n in range(len(head)))
            for _, head, *_ in self.alternatives
        ]


Choose = Callable[[Rule], int]


@cache
def _source() -> dict[str, dict[str, str]]:
    """GRAMMAR as {style: {name: alternatives}}; the shared rules are those of style ""."""
    sections, style = {"": {}}, ""
    for entry in re.split(r"\n(?=\S)", GRAMMAR.strip()):
        if entry.startswith("["):
            style = entry.strip("[]\n")
            sections[style] = {}
        else:
            name, _, alternatives = entry.partition(":")
            sections[style][name] = " ".join(alternatives.split())
    return sections


def _literal(text: str, memory: dict | None = None) -> _Alternative:
    return _Alternative(1, text, (), memory or {})


def _after(rule: Rule, weight: float = 1, tail: tuple = (), memory: dict | None = None):
    """The alternatives of `rule`, together of this weight, each with more after it."""
    total = rule.cumulative[-1]
    for w, head, rest, remembered in rule.alternatives:
        yield _Alternative(weight * w / total, head, rest + tail, remembered | (memory or {}))


@cache
def _words(words: tuple[str, ...]) -> Rule:
    return Rule([_literal(word) for word in words])


def _template(template: str, style: str) -> list[_Alternative]:
    """`3 Good {you}, ...` as one alternative; one that starts with {name}, as those of `name`."""
    weight, template = re.fullmatch(r"(\d* ?)(.*)", template.strip()).groups()
    first, *rest = re.split(r"\{(.*?)\}", template.replace("/", "\n"))
    tail = tuple(s if i % 2 == 0 else _words((s,)) for i, s in enumerate(rest) if s)
    if first:
        return [_Alternative(float(weight or 1), first, tail, {})]
    return list(_after(_rule(tail[0], style), float(weight or 1), tail[1:]))


def _rhymes(families: str) -> list[_Alternative]:
    """Every rhyming word, leaving the others of its family in memory as `chime`."""
    for family in families.split(" | "):
        words = tuple(family.split())
        for word in words:
            yield _literal(word, {"chime": _words(tuple(w for w in words if w != word))})


@cache
def _rule(name: str, style: str) -> Rule:
    """The rule that `{name}` stands for within a speech of this style ("" outside speeches)."""
    if name != name.lower():
        plain = _rule(name.lower(), style).alternatives
        return Rule([a._replace(head=a.head[0].upper() + a.head[1:]) for a in plain])
    if name.startswith("a "):
        plain = _rule(name[2:], style).alternatives
        return Rule([a._replace(head=f"a{'n' * (a.head[0] in 'aeiou')} {a.head}") for a in plain])
    body = _source()[style].get(name) or _source()[""][name]
    ...


class _Author:
    """Derives plays by asking `choose` at every decision: one code that writes and reads."""

    def __init__(self, choose: Choose):
        self.choose = choose
        self.trace: list[tuple[str, tuple[float, ...], int]] = []  # text, costs, style
        self.memory: dict = {"style": -1}
