"""The judge: does an endpoint keep the promises of `docs/contract.md`? It asks, listens, and says what it saw.

`endpoint` judges a server by what needs no fault, `gateway` one between the judge and a simulator that misbehaves.
Every finding has its evidence; what was not seen is `unseen`, never `held`.
"""
