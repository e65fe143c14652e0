package decide

import "iter"

// link is a delivery's place in a list that it is in at most once: 16 bytes, wherever it stands in it. before is the delivery
// itself where it is the latest, and nil where it is in no list.
type link struct{ before, behind *delivery }

func (at *link) in() bool { return at.before != nil }

// linked is such a list, the latest first. of says which of a delivery's links it is.
type linked struct{ latest *delivery }

func (l *linked) add(d *delivery, of func(*delivery) *link) {
	if of(d).in() {
		return
	}
	*of(d) = link{before: d, behind: l.latest}
	if l.latest != nil {
		of(l.latest).before = d
	}
	l.latest = d
}

func (l *linked) remove(d *delivery, of func(*delivery) *link) {
	at := of(d)
	switch {
	case !at.in():
		return
	case at.before == d:
		if l.latest = at.behind; l.latest != nil {
			of(l.latest).before = l.latest
		}
	default:
		if of(at.before).behind = at.behind; at.behind != nil {
			of(at.behind).before = at.before
		}
	}
	*at = link{}
}

// all are they, the latest first. The one that is told may leave the list.
func (l *linked) all(of func(*delivery) *link) iter.Seq[*delivery] {
	return func(yield func(*delivery) bool) {
		for d := l.latest; d != nil; {
			behind := of(d).behind
			if !yield(d) {
				return
			}
			d = behind
		}
	}
}

// noteLink is a delivery's place among those of its notification, atSocketLink among those that wait for a socket.
func noteLink(d *delivery) *link     { return &d.ofNote }
func atSocketLink(d *delivery) *link { return &d.atSocket }
