"""Other projects' own tests, run on python-can's virtual bus and on ours, and compared.

They come from the source distributions of what is installed, when they are run; nothing of them
is kept here. :mod:`.projects` says which, :mod:`.plugin` runs them.
"""
