"""What a person who brings a net that is trained already needs beside a training loop: rates, held-out samples, heads.

`watched`: a training that chooses its learning rate, keeps the best weights and ends where nothing improves.
`rehearsed`: over few samples, a watched run and then one on all of them.
`plain`: one without any of that.
`head`: a new classifier, trained first and alone on maps that are computed once.
"""
