package segment

import (
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/klivvr/whisper/domain/record"
)

// What CEL's interpreter sees of a user. An object or list is read when an operation needs it, and kept for the next
// one. Comparing counts each pair of values that it comes to.

// ResolveName implements CEL's activation.
func (u *subject) ResolveName(name string) (any, bool) {
	switch name {
	case "user.id":
		return u.user, true
	case "user.locale":
		return u.profile.Locale(), true
	case "user.timezone":
		return u.profile.Timezone(), true
	case "user.attributes":
		return (*celObject)(u.attributes()), true
	case "user.endpoints":
		return u.profile.Channels(), true
	default:
		return nil, false
	}
}

// Parent implements CEL's activation.
func (u *subject) Parent() cel.Activation { return nil }

var errExhausted = types.NewErr("reading the attributes took more than %d units", maxSegmentCost)

// celValue is what CEL computes with.
func (u *subject) celValue(m *member) any {
	if m.cel == nil {
		m.cel = u.celOf(m.raw, m.object(u))
	}
	return m.cel
}

func (u *subject) celOf(raw string, inside *object) ref.Val {
	if inside != nil {
		return (*celObject)(inside)
	}
	if raw[0] == '[' {
		return &celList{of: u, raw: raw}
	}
	switch v := u.valueOf(raw); v.kind {
	case isText:
		return types.String(v.text)
	case isBool:
		return types.Bool(v.yes)
	case isInt:
		return types.Int(v.int)
	case isDouble:
		return types.Double(v.num)
	case isNull:
		return types.NullValue
	case isError, isOther:
	}
	if u.exhausted() {
		return errExhausted
	}
	return types.NewErrFromString("a number is too large")
}

// celObject is an object as CEL's map.
type celObject object

var _ traits.Mapper = (*celObject)(nil)

// FindStringKey is what CEL asks of a map for a name that is part of the expression.
func (c *celObject) FindStringKey(name string) (any, bool) {
	m := (*object)(c).member(name)
	if m == nil {
		return nil, false
	}
	return c.of.celValue(m), true
}

// Find implements traits.Mapper.
func (c *celObject) Find(key ref.Val) (ref.Val, bool) {
	if c.of.exhausted() {
		return errExhausted, false
	}
	name, is := key.(types.String)
	if !is {
		if types.IsUnknownOrError(key) {
			return key, false
		}
		return nil, false
	}
	m := (*object)(c).member(string(name))
	if m == nil {
		return nil, false
	}
	v, _ := c.of.celValue(m).(ref.Val)
	return v, true
}

// Contains implements traits.Container.
func (c *celObject) Contains(key ref.Val) ref.Val {
	v, found := c.Find(key)
	if !found && v != nil {
		return v
	}
	return types.Bool(found)
}

// Get implements traits.Indexer.
func (c *celObject) Get(key ref.Val) ref.Val {
	v, found := c.Find(key)
	if !found && v == nil {
		return types.ValOrErr(v, "no such key: %v", key)
	}
	return v
}

// Iterator implements traits.Iterable: over the names.
func (c *celObject) Iterator() traits.Iterator { return c.names().Iterator() }

func (c *celObject) names() traits.Lister {
	members := (*object)(c).all()
	names := make([]ref.Val, len(members))
	for i := range members {
		names[i] = types.String(members[i].name)
	}
	return types.NewRefValList(types.DefaultTypeAdapter, names)
}

// Size implements traits.Sizer.
func (c *celObject) Size() ref.Val { return types.Int(len((*object)(c).all())) }

// Equal implements ref.Val.
func (c *celObject) Equal(other ref.Val) ref.Val {
	o, is := other.(traits.Mapper)
	if !is {
		return types.False
	}
	members := (*object)(c).all()
	if types.Int(len(members)) != o.Size() {
		return types.False
	}
	for i := range members {
		c.of.touch(0)
		if c.of.exhausted() {
			return errExhausted
		}
		theirs, found := o.Find(types.String(members[i].name))
		if !found {
			return types.False
		}
		ours, _ := c.of.celValue(&members[i]).(ref.Val)
		if types.Equal(ours, theirs) == types.False {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (c *celObject) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (c *celObject) Value() any { return c.plain().Value() }

// ConvertToNative implements ref.Val.
func (c *celObject) ConvertToNative(to reflect.Type) (any, error) {
	return c.plain().ConvertToNative(to)
}

// ConvertToType implements ref.Val.
func (c *celObject) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.MapType:
		return c
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("type conversion error from '%s' to '%s'", types.MapType, to)
}

// plain is CEL's own map, for what the language does not need.
func (c *celObject) plain() traits.Mapper {
	all := map[ref.Val]ref.Val{}
	members := (*object)(c).all()
	for i := range members {
		v, _ := c.of.celValue(&members[i]).(ref.Val)
		all[types.String(members[i].name)] = v
	}
	return types.NewRefValMap(types.DefaultTypeAdapter, all)
}

// celList is a list, read as a whole when something of it is needed.
type celList struct {
	of    *subject
	raw   string
	items traits.Lister
}

var _ traits.Lister = (*celList)(nil)

func (c *celList) list() traits.Lister {
	if c.items == nil {
		var items []ref.Val
		at := record.NewCursor(c.raw)
		for raw, ok := at.Item(); ok && !c.of.exhausted(); raw, ok = at.Item() {
			c.of.touch(len(raw))
			var inside *object
			if raw[0] == '{' {
				inside = c.of.object(raw)
			}
			items = append(items, c.of.celOf(raw, inside))
		}
		c.items = types.NewRefValList(types.DefaultTypeAdapter, items)
	}
	return c.items
}

// Add implements traits.Adder.
func (c *celList) Add(other ref.Val) ref.Val { return c.list().Add(other) }

// Contains implements traits.Container.
func (c *celList) Contains(item ref.Val) ref.Val {
	list := c.list()
	n, _ := list.Size().(types.Int)
	for i := range n {
		c.of.touch(0)
		if c.of.exhausted() {
			return errExhausted
		}
		if types.Equal(item, list.Get(i)) == types.True {
			return types.True
		}
	}
	return types.False
}

// Get implements traits.Indexer.
func (c *celList) Get(index ref.Val) ref.Val { return c.list().Get(index) }

// Iterator implements traits.Iterable.
func (c *celList) Iterator() traits.Iterator { return c.list().Iterator() }

// Size implements traits.Sizer.
func (c *celList) Size() ref.Val { return c.list().Size() }

// Equal implements ref.Val.
func (c *celList) Equal(other ref.Val) ref.Val {
	theirs, is := other.(traits.Lister)
	if !is {
		return types.False
	}
	ours := c.list()
	n, _ := ours.Size().(types.Int)
	if n != theirs.Size() {
		return types.False
	}
	for i := range n {
		c.of.touch(0)
		if c.of.exhausted() {
			return errExhausted
		}
		if types.Equal(ours.Get(i), theirs.Get(i)) == types.False {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (c *celList) Type() ref.Type { return types.ListType }

// Value implements ref.Val.
func (c *celList) Value() any { return c.list().Value() }

// ConvertToNative implements ref.Val.
func (c *celList) ConvertToNative(to reflect.Type) (any, error) { return c.list().ConvertToNative(to) }

// ConvertToType implements ref.Val.
func (c *celList) ConvertToType(to ref.Type) ref.Val { return c.list().ConvertToType(to) }
