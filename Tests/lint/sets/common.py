"""What breakages have in common."""


def pick(c, kinds, place, low=0):
    """A turn of one of the kinds that is not the last one."""
    found = [i for i, t in enumerate(c["talk"][:-1]) if t["kind"] in kinds and i >= low]
    return found[min(len(found) - 1, int(place * len(found)))]
