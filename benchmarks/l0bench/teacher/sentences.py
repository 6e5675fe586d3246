"""English sentences from a small grammar: our own text, so the audio made of it can be shipped freely."""

import random

_NAMES = """Alice Benjamin Charlotte Daniel Eleanor Frederick Georgia Harold Isabel Jonathan Katherine Leonard Margaret
Nathan Olivia Patrick Quentin Rebecca Samuel Theresa Ursula Vincent Winifred Xavier Yvonne Zachary Mister-Hughes
Doctor-Fletcher Professor-Shaw Aunt-Josephine Captain-Boyle""".split()
_ADJECTIVES = """quiet yellow ancient broken curious distant enormous familiar gentle heavy invisible jagged kind
lonely muddy narrow orange patient quick rough shallow thick unusual violet warm young zealous cheap fresh wooden
smooth bright rusty golden foolish bitter precious strange ordinary thoughtful southern frozen hollow""".split()
_NOUNS = """apple bridge castle dog engine feather garden hammer island journal kettle ladder mountain notebook ocean
picture question river shadow telescope umbrella village window yacht zebra bicycle chimney doorway envelope forest
guitar harbour jacket kitchen letter machine newspaper orchard pencil railway sandwich teacher uncle vegetable weather
church treasure measure judge thief mouth boy voice choir joy hook pool bush earth nurse cart farm law thought
hair chair beer ear tour house cloud goat road bone""".split()
_TRANSITIVE = """admired borrowed carried described examined followed gathered heard ignored joined kicked lifted
mentioned noticed opened painted questioned repaired studied touched understood visited watched pushed measured
chose threw brought sold bought wrapped shook caught drew""".split()
_INTRANSITIVE = """argued breathed coughed danced escaped fell grumbled hesitated jumped knelt laughed marched nodded
paused rested smiled travelled vanished waited whispered yawned sang shouted slept spoke""".split()
_ADVERBS = """slowly brightly carefully eagerly fiercely happily loudly nervously politely rarely silently thoroughly
usually warmly twice together abroad again early outside""".split()
_PLACES = """behind the station|near the old mill|across the valley|in the library|under the bridge|at the edge of town|
along the coast|above the bakery|inside the museum|between two tall houses|beside the frozen lake|on the third floor|
around the corner|through the narrow gate|below the surface|opposite the theatre""".replace("\n", "").split("|")
_TIMES = """yesterday morning|last Thursday|before the storm|after lunch|in the middle of the night|every other week|
during the summer|at exactly four o'clock|when the music stopped|just before sunrise|twenty years ago|
on the first of May|while the others were talking|as usual|until the rain began|since early February""".replace(
    "\n", ""
).split("|")
_DIGITS = "zero one two three four five six seven eight nine".split()


def sentence(rng: random.Random) -> str:
    """One random sentence of roughly 6 to 25 words."""

    def noun_phrase() -> str:
        form = rng.random()
        if form < 0.25:
            return rng.choice(_NAMES).replace("-", " ")
        determiner = rng.choice(["the", "the", "a", "this", "every", "my", "her", "our", "their", "that", "another"])
        words = [determiner, rng.choice(_NOUNS)]
        if rng.random() < 0.6:
            words.insert(1, rng.choice(_ADJECTIVES))
        if rng.random() < 0.15:
            words += ["of", "the", rng.choice(_NOUNS)]
        return " ".join(words)

    def clause() -> str:
        if rng.random() < 0.6:
            words = [noun_phrase(), rng.choice(_TRANSITIVE), noun_phrase()]
        else:
            words = [noun_phrase(), rng.choice(_INTRANSITIVE)]
        if rng.random() < 0.4:
            words.insert(1, rng.choice(_ADVERBS))
        return " ".join(words)

    def telephone() -> str:
        return " ".join(rng.choice(_DIGITS) for _ in range(rng.randint(5, 8)))

    pattern = rng.random()
    if pattern < 0.35:
        text = f"{clause()} {rng.choice(_PLACES)}, {rng.choice(_TIMES)}"
    elif pattern < 0.60:
        text = f"{clause()} {rng.choice(['and', 'but', 'because', 'although', 'so'])} {clause()}"
    elif pattern < 0.75:
        text = f"{rng.choice(_TIMES)}, {clause()} {rng.choice(_PLACES)}"
    elif pattern < 0.85:
        word = rng.choice(["why", "where", "when", "how"])
        text = f"{word} did {noun_phrase()} find {noun_phrase()} {rng.choice(_PLACES)}?"
    elif pattern < 0.93:
        text = f"please call {rng.choice(_NAMES).replace('-', ' ')}: the number is {telephone()}"
    else:
        text = f"{noun_phrase()} costs {rng.randint(2, 9999)} pounds"
        text = f"{text} and weighs {rng.randint(2, 400)} grams, said {noun_phrase()}"
    text = text[0].upper() + text[1:]
    return text if text.endswith("?") else text + "."
