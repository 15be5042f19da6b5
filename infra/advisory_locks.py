"""The number of every advisory lock the product takes in Postgres.

Numbers never change: two versions of a program must meet at the same lock while a fleet is updated.
"""

from typing import Final

#: One process migrates at a time.
MIGRATIONS: Final = 0x1F1EE7_0001
#: The one keeper that acts holds it for as long as it leads.
KEEPER: Final = 0x1F1EE7_0002
#: Processes that start on one home take turns to make the first key.
FIRST_KEY: Final = 0x1F1EE7_0003
#: One scan for models at a time: two would each add what the other has just added.
MODEL_SCAN: Final = 0x1F1EE7_0004
#: One process at a time looks which analyses are missing: two would each ask for the same.
ANALYSES: Final = 0x1F1EE7_0017
#: The keeper that looks after the model folders: of several, one scans, hashes and stores.
MODEL_FOLDERS: Final = 0x1F1EE7_0006
#: One backup of the library is made or restored at a time.
BACKUP: Final = 0x1F1EE7_0005
#: Equal requests are stored one after the other: the first of two numbers, which have a space of their own; the second is their hash.
EQUAL_REQUESTS: Final = 0x1F1EE7
