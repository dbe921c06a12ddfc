"""Module names of python-can's: whatever ``from can.message import …`` finds is here as well.

``canbroker/__init__.py`` puts this folder on the package's path, so that ``canbroker.message`` is
``names/message.py``. Nothing in the package itself imports by these names.
"""
