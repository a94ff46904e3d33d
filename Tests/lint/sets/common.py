"""What breakages have in common."""


def pick(c, kinds, place, low=0):
    """A turn of one of the kinds that is not the last one."""
    found = [i for i, t in enumerate(c["talk"][:-1]) if t["kind"] in kinds and i >= low]
    return found[min(len(found) - 1, int(place * len(found)))]


def two(make):
    """Two values that differ."""
    def both(words):
        first, second = make(words), make(words)
        while second == first:
            second = make(words)
        return first, second
    return both


def rise(form, low, high, by):
    """A number, and a larger one."""
    def make(words):
        n = words.random.randint(low, high)
        return form.format(n), form.format(n + words.random.randint(1, by))
    return make
