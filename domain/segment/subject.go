package segment

import (
	"strconv"
	"strings"
	"sync"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
)

// subject is the user who is asked about. It reads of the profile what the expression names, at most once, however often
// it is named: an object's members are noted as they are passed on the way to the one that is asked for.
//
// It counts what reading costs, in CEL's units: a value is one, and so are [bytesPerUnit] bytes. CEL's own limit sees
// operations only. To CEL `a == b` costs one unit, also where both are nested lists of 64 KiB.
type subject struct {
	user    string
	profile profile.View
	root    *object
	read    int // bytes, and bytesPerUnit for each value

	objects []*object // made for this user or an earlier one: their memory is used again
	used    int
}

// bytesPerUnit: stepping over a byte takes a nanosecond, and a unit of CEL's 30 to 50.
const bytesPerUnit = 32

var subjects = sync.Pool{New: func() any { return &subject{} }}

func newSubject(user string, view profile.View) *subject {
	u := subjects.Get().(*subject)
	u.user, u.profile = user, view
	return u
}

// free hands the memory on. Nothing of the user stays in it: the texts share the memory of the profile.
func (u *subject) free() {
	for _, o := range u.objects[:u.used] {
		clear(o.members)
		*o = object{members: o.members[:0]}
	}
	u.user, u.profile, u.root, u.read, u.used = "", "", nil, 0, 0
	subjects.Put(u)
}

func (u *subject) units() int { return u.read / bytesPerUnit }

// exhausted reports whether reading took all that it may. The user's answer is an error then.
func (u *subject) exhausted() bool { return u.read > maxSegmentCost*bytesPerUnit }

// touch counts a value and its bytes.
func (u *subject) touch(bytes int) { u.read += bytesPerUnit + bytes }

// attributes is the object that upstream wrote.
func (u *subject) attributes() *object {
	if u.root == nil {
		u.root = u.object(u.profile.Attributes())
	}
	return u.root
}

func (u *subject) object(raw string) *object {
	if u.used == len(u.objects) {
		u.objects = append(u.objects, &object{})
	}
	o := u.objects[u.used]
	u.used++
	o.of, o.raw, o.rest = u, raw, record.NewCursor(raw)
	return o
}

// object is a JSON object of which the members up to the last one that was asked for are known. celObject is what CEL sees
// of it.
type object struct {
	of      *subject
	raw     string
	rest    record.Cursor
	whole   bool // there is no further member
	members []member
	byName  map[string]int // only where they are many
}

// member is a name, its value as it is written, and what was made of it so far.
type member struct {
	name   string
	raw    string
	inside *object
	cel    any
}

// manyMembers is from where on a map finds a name sooner.
const manyMembers = 16

// member returns the member of this name, or nil. Merged attributes have no blanks, and no name twice. The pointer is
// good until the next member is asked for.
func (o *object) member(name string) *member {
	if o.byName != nil {
		if i, known := o.byName[name]; known {
			return &o.members[i]
		}
	} else {
		for i := range o.members {
			if o.members[i].name == name {
				return &o.members[i]
			}
		}
	}
	for o.next() {
		if m := &o.members[len(o.members)-1]; m.name == name {
			return m
		}
	}
	return nil
}

// next reads one more member; false: there is none, or reading took all that it may.
func (o *object) next() bool {
	if o.whole || o.of.exhausted() {
		return false
	}
	if o.raw == "" || o.raw[0] != '{' {
		o.whole = true
		return false
	}
	key, raw, ok := o.rest.Member()
	if !ok {
		o.whole = true
		return false
	}
	o.of.touch(len(key) + len(raw))
	name, err := record.Text(key)
	if err != nil {
		return o.next() // upstream can't write such a name
	}
	o.members = append(o.members, member{name: name, raw: raw})
	switch n := len(o.members); {
	case o.byName != nil:
		o.byName[name] = n - 1
	case n == manyMembers:
		o.byName = make(map[string]int, 2*n)
		for i := range o.members {
			o.byName[o.members[i].name] = i
		}
	}
	return true
}

// all reads every member.
func (o *object) all() []member {
	for o.next() {
	}
	return o.members
}

// object is the member's value where that is an object, or nil.
func (m *member) object(u *subject) *object {
	if m.inside == nil && strings.HasPrefix(m.raw, "{") {
		m.inside = u.object(m.raw)
	}
	return m.inside
}

// valueOf reads a value as it is written.
func (u *subject) valueOf(raw string) value {
	if raw == "" || u.exhausted() {
		return value{}
	}
	u.touch(0)
	switch raw[0] {
	case '"':
		if strings.IndexByte(raw, '\\') >= 0 {
			u.touch(8 * len(raw))
		}
		text, err := record.Text(raw)
		if err != nil {
			return value{}
		}
		return value{kind: isText, text: text}
	case 't':
		return boolean(true)
	case 'f':
		return boolean(false)
	case 'n':
		return value{kind: isNull}
	case '{', '[':
		return value{kind: isOther}
	default:
		if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
			return value{kind: isInt, int: n}
		}
		f, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return value{}
		}
		return value{kind: isDouble, num: f}
	}
}
