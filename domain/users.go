package domain

import (
	"encoding/binary"
	"hash/maphash"
)

// userTable is what a [State] keeps of its users: of each the id, the encoded profile, and when it was sent what caps
// count. It is a hash table with linear probing over texts in [blocks]: Go's own map would be a quarter of the memory
// of a million users, and have the garbage collector mark each of them.
//
// It costs a user 17 to 35 bytes for the slot, 5 for the order and the length of the id, 5 or 6 for each of the two
// texts, and the texts. Who is forgotten leaves the id and the slot behind, until the restart.
type userTable struct {
	roster
	seed  maphash.Seed
	tags  []byte // of each slot: 0 where it is free, or 7 bits of the id's hash
	slots []userSlot
	taken int
	known int // have a profile

	texts blocks
	// gone is how many bytes of each block nobody has any more.
	gone []int32
}

type userSlot struct {
	id   idRef
	kept [keptKinds]textRef // 0: nothing
}

// keptKind is what is kept of a user beside the id.
type keptKind uint8

const (
	keptProfile keptKind = iota // an encoded whisperv1.Profile; who has none is not known
	keptStamps                  // see stamps
	keptKinds
)

const firstSlots = 16

func newUserTable() *userTable {
	return &userTable{seed: maphash.MakeSeed(), tags: make([]byte, firstSlots), slots: make([]userSlot, firstSlots)}
}

// find is the slot of an id, or the one where it would be.
func (t *userTable) find(user string) (slot int, found bool) {
	hash := maphash.String(t.seed, user)
	tag, mask := byte(hash>>57)|0x80, len(t.slots)-1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		switch t.tags[i] {
		case 0:
			return i, false
		case tag:
			if t.ids.get(t.slots[i].id) == user {
				return i, true
			}
		}
	}
}

// ref is the id's, if it was ever added.
func (t *userTable) ref(user string) (idRef, bool) {
	slot, found := t.find(user)
	return t.slots[slot].id, found
}

// intern is the id's, which is added where it is missing.
func (t *userTable) intern(user string) idRef { return t.slots[t.add(user)].id }

// own is the table's copy of an id.
func (t *userTable) own(ref idRef) string { return t.ids.get(ref) }

// add is the slot of an id, which is added where it is missing: to the order too. Slots hold until the next one is.
func (t *userTable) add(user string) int {
	slot, found := t.find(user)
	if found {
		return slot
	}
	if (t.taken+1)*4 > len(t.slots)*3 {
		t.grow()
		slot, _ = t.find(user)
	}
	t.taken++
	t.place(slot, user, userSlot{id: t.roster.add(user)})
	return slot
}

func (t *userTable) place(slot int, user string, s userSlot) {
	t.tags[slot], t.slots[slot] = byte(maphash.String(t.seed, user)>>57)|0x80, s
}

// grow makes twice the slots: 50 ns a user.
func (t *userTable) grow() {
	old, tags := t.slots, t.tags
	t.tags, t.slots = make([]byte, 2*len(old)), make([]userSlot, 2*len(old))
	for i, s := range old {
		if tags[i] != 0 {
			user := t.ids.get(s.id)
			slot, _ := t.find(user)
			t.place(slot, user, s)
		}
	}
}

// profile is a user's; false: nobody is known by that id.
func (t *userTable) profile(user string) (profileView, bool) {
	text, ok := t.get(user, keptProfile)
	return profileView(text), ok
}

// profileOf is the zero view where nobody is known.
func (t *userTable) profileOf(user string) profileView {
	v, _ := t.profile(user)
	return v
}

func (t *userTable) get(user string, kind keptKind) (string, bool) {
	slot, found := t.find(user)
	if !found || t.slots[slot].kept[kind] == 0 {
		return "", false
	}
	_, text := readKept(t.texts.from(t.slots[slot].kept[kind]))
	return text, true
}

func (t *userTable) putProfile(user string, encoded []byte) {
	slot := t.add(user)
	if t.slots[slot].kept[keptProfile] == 0 {
		t.known++
	}
	t.put(slot, keptProfile, encoded)
}

// forgetProfile says whether there was one.
func (t *userTable) forgetProfile(user string) bool {
	if !t.forget(user, keptProfile) {
		return false
	}
	t.known--
	return true
}

// put replaces what is kept in a slot.
func (t *userTable) put(slot int, kind keptKind, text []byte) {
	t.drop(slot, kind)
	t.write(slot, kind, text)
}

func (t *userTable) write(slot int, kind keptKind, text []byte) {
	var scratch [4 + binary.MaxVarintLen64]byte
	head := binary.LittleEndian.AppendUint32(scratch[:0], uint32(t.slots[slot].id))
	head = binary.AppendUvarint(head, uint64(len(text))*uint64(keptKinds)+uint64(kind))
	full := t.texts.last
	t.slots[slot].kept[kind] = t.texts.put(head, text)
	if t.texts.last != full {
		t.tidy(full)
	}
}

// keptHead is what stands before a text: whose it is, what, and how long.
type keptHead struct {
	owner idRef
	kind  keptKind
	size  int // with the head
}

// readKept reads the first text of a block's rest.
func readKept(rest string) (keptHead, string) {
	owner := idRef(rest[0]) | idRef(rest[1])<<8 | idRef(rest[2])<<16 | idRef(rest[3])<<24
	length, n := uvarint(rest[4:])
	size := 4 + n + int(length/uint64(keptKinds))
	return keptHead{owner: owner, kind: keptKind(length % uint64(keptKinds)), size: size}, rest[4+n : size]
}

func (t *userTable) forget(user string, kind keptKind) bool {
	slot, found := t.find(user)
	return found && t.drop(slot, kind)
}

// drop says whether anything was kept.
func (t *userTable) drop(slot int, kind keptKind) bool {
	ref := t.slots[slot].kept[kind]
	if ref == 0 {
		return false
	}
	t.slots[slot].kept[kind] = 0
	for len(t.gone) <= ref.block() {
		t.gone = append(t.gone, 0)
	}
	head, _ := readKept(t.texts.from(ref))
	t.gone[ref.block()] += int32(head.size)
	t.tidy(ref.block())
	return true
}

// tidy gives a full block back once a third of it is nobody's any more, so that what is kept takes half as much again at
// most. The rest of it moves: some 55 profiles, and over time two bytes for each that was dropped.
func (t *userTable) tidy(block int) {
	text := t.texts.texts[block]
	if block == t.texts.last || block >= len(t.gone) || 3*int(t.gone[block]) <= len(text) {
		return
	}
	for at := 0; at < len(text); {
		head, kept := readKept(text[at:])
		slot, _ := t.find(t.ids.get(head.owner))
		if t.slots[slot].kept[head.kind] == textRef(block<<blockBits|at) {
			t.write(slot, head.kind, []byte(kept))
		}
		at += head.size
	}
	t.gone[block] = 0
	t.texts.giveBack(block)
}
