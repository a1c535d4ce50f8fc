"""When a feature counts as switched off: |gamma| < SMALL. The paper's definition as third parties
tell it; its own text was not at hand to confirm."""

SMALL = 0.01
