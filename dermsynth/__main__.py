"""`dermsynth`: the commands with a line each, and `dermsynth PACKAGE COMMAND ...` to run one."""

import difflib
import runpy
import sys

from dermsynth import __version__
from dermsynth.leaving import BAD_INPUT, leave_quietly, say

COMMANDS = {
    "data prepare": "make a dataset that everything else reads: images, groups, folds",
    "data report": "the dataset card: counts, duplicates, leaks",
    "data download": "fetch a public data set from its official address",
    "data phantom": "draw a pool of phantom lesions, whose truth is known",
    "gan train": "train a generator on the training part of a fold",
    "gan generate": "make a pool of synthetic lesions",
    "gan evaluate": "score a generator or a pool against real images it never saw",
    "gan explore": "look into a generator: walks, neighbours, a real image found again",
    "classifier train": "fine-tune a classifier on real and synthetic lesions",
    "classifier evaluate": "calibration, operating points, subgroups, failures of a run",
    "classifier predict": "score a dataset or a folder of images, to a CSV",
    "classifier export": "a trained classifier as one ONNX file",
    "classifier metadata": "melanoma from age, sex and site alone",
    "classifier blend": "mix the scores of several models",
    "experiments run": "compare classifiers with and without synthetic lesions",
    "experiments report": "write the report of an experiment again",
    "experiments gallery": "one page over all experiments, generators, classifiers and datasets",
    "verify": "check a dataset, pool, run or experiment against its manifest",
}
WORDS = """Would GAN-made lesions help my skin-lesion classifier, by how much, and can I trust it?

  dermsynth PACKAGE COMMAND --help     the options of one, which is also `python -m PACKAGE.COMMAND`
"""


def listing(package: str = "") -> str:
    """The commands, or those of one package, a line each."""
    width = max(map(len, COMMANDS))
    chosen = {name: words for name, words in COMMANDS.items() if name.startswith(package)}
    return "\n".join(f"  dermsynth {name:<{width}}  {words}" for name, words in chosen.items())


def module_of(name: str) -> str:
    """The module of a command of COMMANDS."""
    return name.replace(" ", ".") if " " in name else f"dermsynth.{name}"


def main() -> None:
    """Run the command that the words on the command line name; list them where there are none."""
    try:
        _main()
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads the list
        leave_quietly()


def _main() -> None:
    words = sys.argv[1:]
    packages = {name.split()[0] for name in COMMANDS if " " in name}
    if not words or words[0] in ("-h", "--help", "help"):
        print(f"{WORDS}\n{listing()}")
        return
    if words[0] == "--version":
        print(f"dermsynth {__version__}")
        return
    if "." in words[0]:
        words[:1] = words[0].split(".", 1)
    if words[0] in packages and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(listing(f"{words[0]} "))
        return
    name = words[0] if words[0] in COMMANDS else " ".join(words[:2])
    if name not in COMMANDS:
        typed = " ".join(word for word in words[:2] if not word.startswith("-"))
        whole = " " in typed  # else the package was left out
        likely = {known if whole else known.split()[-1]: known for known in COMMANDS}
        (near,) = difflib.get_close_matches(typed, likely, 1, 0.0)
        hint = f"did you mean `dermsynth {likely[near]}`? `dermsynth` lists them"
        say(f"error: dermsynth {name}: no such command; {hint}")
        sys.exit(BAD_INPUT)
    module = module_of(name)
    sys.argv = [module, *words[len(name.split()) :]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
