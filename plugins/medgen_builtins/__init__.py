"""What medgen brings along: one room per kind, one file per plugin, found through entry points like
anyone's.
"""
