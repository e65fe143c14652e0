package users

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/klivvr/whisper/domain/profile"
)

// Table holds what a [decide.State] keeps of its users: for each the id, the encoded profile, and when they were sent
// what caps count. It is a hash table with linear probing over texts in [blocks]. The package comment says why it is
// not one of Go's maps.
//
// A user costs 17 to 35 bytes for the slot, 5 for the order and the length of the id, 5 or 6 for each of the two texts,
// and the texts. The id and the slot of a forgotten user stay until the restart.
type Table struct {
	roster
	seed  maphash.Seed
	tags  []byte // of each slot: 0 where it is free, or 7 bits of the id's hash
	slots []entry
	taken int
	Known int // have a profile

	texts blocks
	// gone is the number of bytes in each block that belong to no user any more.
	gone []int32
}

type entry struct {
	id   IDRef
	kept [kinds]textRef // 0: nothing
}

// Kind is one of the texts that are kept for a user beside the id.
type Kind uint8

const (
	kindProfile Kind = iota // an encoded whisperv1.Profile; who has none is not known
	KindStamps              // see stamps
	kinds
)

const firstSlots = 16

// NewTable is an empty table.
func NewTable() *Table {
	return &Table{seed: maphash.MakeSeed(), tags: make([]byte, firstSlots), slots: make([]entry, firstSlots)}
}

// find returns the slot of an id, or the free slot where it would be added.
func (t *Table) find(user string) (slot int, found bool) {
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

// Ref returns the reference of an id that was added before.
func (t *Table) Ref(user string) (IDRef, bool) {
	slot, found := t.find(user)
	return t.slots[slot].id, found
}

// Intern returns the reference of an id, and adds it if it is missing.
func (t *Table) Intern(user string) IDRef { return t.slots[t.Add(user)].id }

// Own returns the copy of an id that the table keeps.
func (t *Table) Own(ref IDRef) string { return t.ids.get(ref) }

// Add returns the slot of an id. A missing id is added to the table and to the order. Slots are valid until the next id
// is added.
func (t *Table) Add(user string) int {
	slot, found := t.find(user)
	if found {
		return slot
	}
	if (t.taken+1)*4 > len(t.slots)*3 {
		t.grow()
		slot, _ = t.find(user)
	}
	t.taken++
	t.place(slot, user, entry{id: t.enter(user)})
	return slot
}

func (t *Table) place(slot int, user string, s entry) {
	t.tags[slot], t.slots[slot] = byte(maphash.String(t.seed, user)>>57)|0x80, s
}

// grow doubles the slots. It takes some 50 ns a user.
func (t *Table) grow() {
	old, tags := t.slots, t.tags
	t.tags, t.slots = make([]byte, 2*len(old)), make([]entry, 2*len(old))
	for i, s := range old {
		if tags[i] != 0 {
			user := t.ids.get(s.id)
			slot, _ := t.find(user)
			t.place(slot, user, s)
		}
	}
}

// Profile returns the profile of a user, or false if there is none.
func (t *Table) Profile(user string) (profile.View, bool) {
	text, ok := t.Get(user, kindProfile)
	return profile.View(text), ok
}

// ProfileOf returns the profile of a user, or the zero view if there is none.
func (t *Table) ProfileOf(user string) profile.View {
	v, _ := t.Profile(user)
	return v
}

// Get returns one text of a user. It shares the memory of the table.
func (t *Table) Get(user string, kind Kind) (string, bool) {
	slot, found := t.find(user)
	if !found || t.slots[slot].kept[kind] == 0 {
		return "", false
	}
	_, text := readKept(t.texts.from(t.slots[slot].kept[kind]))
	return text, true
}

// PutProfile stores an encoded whisperv1.Profile in place of an earlier one.
func (t *Table) PutProfile(user string, encoded []byte) {
	slot := t.Add(user)
	if t.slots[slot].kept[kindProfile] == 0 {
		t.Known++
	}
	t.Put(slot, kindProfile, encoded)
}

// ForgetProfile removes the profile of a user, and reports whether there was one.
func (t *Table) ForgetProfile(user string) bool {
	if !t.Forget(user, kindProfile) {
		return false
	}
	t.Known--
	return true
}

// Put replaces a text of a slot.
func (t *Table) Put(slot int, kind Kind, text []byte) {
	t.drop(slot, kind)
	t.write(slot, kind, text)
}

func (t *Table) write(slot int, kind Kind, text []byte) {
	var scratch [4 + binary.MaxVarintLen64]byte
	head := binary.LittleEndian.AppendUint32(scratch[:0], uint32(t.slots[slot].id))
	head = binary.AppendUvarint(head, uint64(len(text))*uint64(kinds)+uint64(kind))
	full := t.texts.last
	t.slots[slot].kept[kind] = t.texts.put(head, text)
	if t.texts.last != full {
		t.tidy(full)
	}
}

// keptHead is written before each text: its owner, its kind and its length.
type keptHead struct {
	owner IDRef
	kind  Kind
	size  int // with the head
}

// readKept reads the first text of a block's rest.
func readKept(rest string) (keptHead, string) {
	owner := IDRef(rest[0]) | IDRef(rest[1])<<8 | IDRef(rest[2])<<16 | IDRef(rest[3])<<24
	length, n := profile.Uvarint(rest[4:])
	size := 4 + n + int(length/uint64(kinds))
	return keptHead{owner: owner, kind: Kind(length % uint64(kinds)), size: size}, rest[4+n : size]
}

// Forget removes one text of a user, and reports whether there was one.
func (t *Table) Forget(user string, kind Kind) bool {
	slot, found := t.find(user)
	return found && t.drop(slot, kind)
}

// drop removes a text of a slot, and reports whether there was one.
func (t *Table) drop(slot int, kind Kind) bool {
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

// tidy releases a full block when a third of it belongs to no user any more. So texts take at most half as much memory
// again as they need. The rest of the block is copied: some 55 profiles, and over time two bytes for each byte that was
// dropped.
func (t *Table) tidy(block int) {
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
