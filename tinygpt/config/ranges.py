"""The ranges of numbers that several settings have."""

from typing import Annotated

from ..checks import Limit

Count = Annotated[int, Limit(at_least=1)]
Whole = Annotated[int, Limit(at_least=0)]
Positive = Annotated[float, Limit(above=0)]
Weight = Annotated[float, Limit(at_least=0)]
Rate = Annotated[float, Limit(at_least=0, below=1)]  # of what happens by chance, or of forgetting
Share = Annotated[float, Limit(at_least=0, at_most=1)]
Mass = Annotated[float, Limit(above=0, at_most=1)]  # of probability
Seed = Annotated[int, Limit(at_least=-(2**63), at_most=2**63 - 1)]  # what torch's generators take
