package liquid

import "maps"

// needs are the needed variables by path. A variable that is read only under a condition is not needed: upstream may
// leave it out if the condition does not hold, and if it holds after all, rendering fails. What every branch needs is
// needed.
type needs map[string]Need

func needsOf(body []node) needs {
	all := needs{}
	for _, n := range body {
		switch n := n.(type) {
		case *outputNode:
			all.chain(n.chain, NeedText)
		case *assignNode:
			all.chain(n.chain, NeedAny)
		case *captureNode:
			all.join(needsOf(n.body))
		case *loopNode:
			all.loop(n)
		case *branchNode:
			all.branches(n)
		case literalNode, jumpNode:
		}
	}
	return all
}

// add adds the path of a variable of the request. Of two kinds, the stricter one stays.
func (s needs) add(o operand, kind NeedKind) {
	if o.root != variableRoot {
		return
	}
	path := make([]string, len(o.steps))
	key := ""
	for i, step := range o.steps {
		if step.root != noRoot || step.literal.kind != textKind {
			s.add(step, NeedAny)
			if i == 0 {
				return
			}
			// What follows an index depends on the index. The list before it is needed.
			path, kind = path[:i], NeedAny
			break
		}
		path[i] = step.literal.text
		key += "\x00" + path[i]
	}
	if last := len(path) - 1; last > 0 && isListProperty(path[last]) { // items.size: of what it is, is not known
		path, kind, key = path[:last], NeedAny, key[:len(key)-len(path[last])-1]
	}
	if old, ok := s[key]; !ok || kind > old.Kind {
		s[key] = Need{path, kind}
	}
}

func isListProperty(name string) bool { return name == "size" || name == "first" || name == "last" }

func (s needs) chain(c chain, kind NeedKind) {
	if len(c.calls) > 0 {
		kind = c.calls[0].filter.needs
		if !c.calls[0].filter.optional {
			s.add(c.input, kind)
		}
	} else {
		s.add(c.input, kind)
	}
	for _, call := range c.calls {
		for _, a := range call.args {
			s.add(a, NeedText)
		}
		for _, a := range call.named {
			s.add(a.value, NeedText)
		}
	}
}

func (s needs) join(other needs) {
	for key, n := range other {
		if old, ok := s[key]; !ok || n.Kind > old.Kind {
			s[key] = n
		}
	}
}

func (s needs) loop(n *loopNode) {
	if n.none == nil { // else is for what is not there, too
		s.add(n.list, NeedList)
	}
	for _, o := range []*operand{n.from, n.to, n.limit, n.offset} {
		if o != nil {
			s.add(*o, NeedNumber)
		}
	}
}

// branches need what the first test needs, and what all branches need, if one of them is always taken.
func (s needs) branches(n *branchNode) {
	if n.subject == nil {
		s.test(n.branches[0].cond.tests[0])
	}
	if len(n.branches) == 0 || !n.branches[len(n.branches)-1].last {
		return
	}
	common := needsOf(n.branches[0].body)
	for _, b := range n.branches[1:] {
		other := needsOf(b.body)
		maps.DeleteFunc(common, func(key string, _ Need) bool {
			_, both := other[key]
			return !both
		})
	}
	s.join(common)
}

// test adds what a test needs: an order needs values, equality and truth need none.
func (s needs) test(t test) {
	switch t.op {
	case "", "==", "!=":
		return
	}
	s.add(t.left, NeedAny)
	s.add(t.right, NeedAny)
}
