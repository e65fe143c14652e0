package gateway

import (
	"iter"

	"github.com/klivvr/whisper/domain"
)

// unacked are the deliveries that a session has not acknowledged, the latest attempt of each. Mostly that is one or none,
// for which a map would be made and dropped with each delivery: a few hundred bytes each time.
type unacked struct {
	one  *delivery
	many map[domain.DeliveryHash]*delivery // one is nil then
}

func (u *unacked) len() int {
	if u.one != nil {
		return 1
	}
	return len(u.many)
}

func (u *unacked) get(hash domain.DeliveryHash) *delivery {
	if u.one != nil {
		if u.one.id.Hash() == hash {
			return u.one
		}
		return nil
	}
	return u.many[hash]
}

// only is the one, where a client means it by these words: so its hash, a tenth of the CPU of an acknowledgement, need not
// be found from them.
func (u *unacked) only(notification, receipt string) *delivery {
	if d := u.one; d != nil && d.facts.Notification == notification && (receipt == "" || domain.IsReceipt(receipt, d.id)) {
		return d
	}
	return nil
}

func (u *unacked) add(d *delivery) {
	hash := d.id.Hash()
	switch {
	case u.one == nil && u.many == nil, u.one != nil && u.one.id.Hash() == hash:
		u.one = d
		return
	case u.one != nil:
		u.many = map[domain.DeliveryHash]*delivery{u.one.id.Hash(): u.one}
		u.one = nil
	}
	u.many[hash] = d
}

// remove does nothing where a later attempt has taken the place of d.
func (u *unacked) remove(d *delivery) {
	if u.one == d {
		u.one = nil
		return
	}
	if hash := d.id.Hash(); u.many[hash] == d {
		delete(u.many, hash)
	}
	if len(u.many) == 0 {
		u.many = nil // a map keeps its room otherwise
	}
}

func (u *unacked) all() iter.Seq[*delivery] {
	return func(yield func(*delivery) bool) {
		if u.one != nil {
			yield(u.one)
			return
		}
		for _, d := range u.many {
			if !yield(d) {
				return
			}
		}
	}
}
