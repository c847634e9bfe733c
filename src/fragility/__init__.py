"""How well influence functions predict retraining: the study of Basu, Pope and Feizi (2021).

It is repeated over seeds, with intervals, and with a control that retrains without removing
anything. A study is a module that measures configurations, seed by seed, and draws what came out.
"""
