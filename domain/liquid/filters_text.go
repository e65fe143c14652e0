package liquid

import (
	"html"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// The filters of texts do what Shopify's do, but count characters as people see them, and take Unicode's blanks.
var textFilters = []filter{
	{name: "upcase", needs: NeedText, apply: onText(strings.ToUpper)},
	{name: "downcase", needs: NeedText, apply: onText(strings.ToLower)},
	{name: "capitalize", needs: NeedText, apply: onText(capitalize)},
	{name: "strip", needs: NeedText, apply: onText(strings.TrimSpace)},
	{name: "lstrip", needs: NeedText, apply: onText(func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) })},
	{name: "rstrip", needs: NeedText, apply: onText(func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) })},
	{name: "strip_newlines", needs: NeedText, apply: onText(strings.NewReplacer("\r\n", "", "\n", "").Replace)},
	{name: "escape", needs: NeedText, apply: escape},
	{name: "url_encode", needs: NeedText, apply: onText(url.QueryEscape)},
	{name: "append", needs: NeedText, least: 1, most: 1, apply: withText(func(s string, a []string) (string, error) { return s + a[0], nil })},
	{name: "prepend", needs: NeedText, least: 1, most: 1, apply: withText(func(s string, a []string) (string, error) { return a[0] + s, nil })},
	{name: "remove", needs: NeedText, least: 1, most: 1, apply: withText(func(s string, a []string) (string, error) { return replace(s, a[0], "", -1) })},
	{name: "remove_first", needs: NeedText, least: 1, most: 1, apply: withText(func(s string, a []string) (string, error) { return replace(s, a[0], "", 1) })},
	{name: "replace", needs: NeedText, least: 2, most: 2, apply: withText(func(s string, a []string) (string, error) { return replace(s, a[0], a[1], -1) })},
	{name: "replace_first", needs: NeedText, least: 2, most: 2, apply: withText(func(s string, a []string) (string, error) { return replace(s, a[0], a[1], 1) })},
	{name: "truncate", needs: NeedText, least: 0, most: 2, apply: searching(withText(truncate))},
	{name: "truncatewords", needs: NeedText, least: 0, most: 2, apply: withText(truncateWords)},
	{name: "slice", needs: NeedText, least: 1, most: 2, apply: searching(withText(slice))},
	{name: "default", optional: true, least: 1, most: 1, apply: orDefault},
}

// searching is for filters that search a whole input, and whose output may be small.
func searching(f func(*exec, value, arguments) (value, error)) func(*exec, value, arguments) (value, error) {
	return func(x *exec, in value, a arguments) (value, error) {
		if !x.step(countingSteps(in.text)) {
			return value{}, nil // the text is given up
		}
		return f(x, in, a)
	}
}

func capitalize(s string) string {
	n := charactersEnd(s, 1)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

func escape(_ *exec, in value, _ arguments) (value, error) {
	s, err := in.print()
	if in.safe {
		return in, err
	}
	made := textValue(html.EscapeString(s))
	made.safe = true
	return made, err
}

// replace never makes a text that is too long, not even for a moment.
func replace(s, old, by string, n int) (string, error) {
	if old == "" {
		return "", describe("there is nothing to look for: the first argument is empty")
	}
	times := strings.Count(s, old)
	if n > 0 {
		times = min(times, n)
	}
	if len(s)+times*len(by) > 2*MaxValueBytes {
		return "", describe("makes a value of more than %d bytes", MaxValueBytes)
	}
	return strings.Replace(s, old, by, n), nil
}

// truncate cuts a text to a number of characters, including those of the ending (…).
func truncate(s string, a []string) (string, error) {
	most, end := 50, "..."
	if len(a) > 0 {
		n, err := count(a[0])
		if err != nil {
			return "", err
		}
		most = n
	}
	if len(a) > 1 {
		end = a[1]
	}
	if len(s) <= most || charactersEnd(s, most) == len(s) {
		return s, nil
	}
	return s[:charactersEnd(s, max(0, most-characters(end)))] + end, nil
}

func truncateWords(s string, a []string) (string, error) {
	most, end := 15, "..."
	if len(a) > 0 {
		n, err := count(a[0])
		if err != nil {
			return "", err
		}
		most = max(n, 1)
	}
	if len(a) > 1 {
		end = a[1]
	}
	words := strings.Fields(s)
	if len(words) <= most {
		return s, nil
	}
	return strings.Join(words[:most], " ") + end, nil
}

// slice takes characters from an index. A negative index counts from the end.
func slice(s string, a []string) (string, error) {
	from, err := strconv.Atoi(a[0])
	if err != nil {
		return "", describe("%q is not a whole number", quoted(a[0]))
	}
	length := 1
	if len(a) > 1 {
		if length, err = count(a[1]); err != nil {
			return "", err
		}
	}
	if from < 0 {
		if from += characters(s); from < 0 {
			return "", nil
		}
	}
	s = s[charactersEnd(s, from):]
	return s[:charactersEnd(s, length)], nil
}

func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, describe("%q is not a number of characters or words", quoted(s))
	}
	return int(n), nil
}

func orDefault(_ *exec, in value, a arguments) (value, error) {
	if !in.truth() || in.empty() {
		return a.all[0], nil
	}
	return in, nil
}

var listFilters = []filter{
	{name: "size", apply: func(x *exec, in value, _ arguments) (value, error) {
		x.step(countingSteps(in.text))
		n, ok := in.size()
		if !ok {
			return value{}, describe("only texts and lists have a size")
		}
		return intValue(n), nil
	}},
	{name: "first", needs: NeedList, apply: onList(func(items []value) value { return items[0] })},
	{name: "last", needs: NeedList, apply: onList(func(items []value) value { return items[len(items)-1] })},
	{name: "split", needs: NeedText, least: 1, most: 1, apply: split},
	{name: "join", needs: NeedList, least: 0, most: 1, apply: join},
	{name: "map", needs: NeedList, least: 1, most: 1, apply: func(_ *exec, in value, a arguments) (value, error) {
		if in.kind != listKind {
			return value{}, errNoList
		}
		made := value{kind: listKind, made: true}
		for _, item := range in.list() {
			made.items = append(made.items, item.at(a.all[0]))
		}
		return made, nil
	}},
	{name: "reverse", needs: NeedList, apply: func(_ *exec, in value, _ arguments) (value, error) {
		if in.kind != listKind {
			return value{}, errNoList
		}
		items := in.list()
		made := value{kind: listKind, made: true}
		for i := range items {
			made.items = append(made.items, items[len(items)-1-i])
		}
		return made, nil
	}},
}

// onList is for filters that have no value for an empty list.
func onList(f func([]value) value) func(*exec, value, arguments) (value, error) {
	return func(_ *exec, in value, _ arguments) (value, error) {
		if in.kind != listKind {
			return value{}, errNoList
		}
		if items := in.list(); len(items) > 0 {
			return f(items), nil
		}
		return value{}, nil
	}
}

func split(x *exec, in value, a arguments) (value, error) {
	s, err := in.print()
	if err != nil {
		return value{}, err
	}
	by, err := a.all[0].print()
	if err != nil {
		return value{}, describe("argument 1 %w", err)
	}
	made := value{kind: listKind, made: true}
	if s == "" || !x.step(strings.Count(s, by)) {
		return made, nil
	}
	parts := []string(nil)
	if by == "" {
		for rest := s; rest != ""; {
			n := charactersEnd(rest, 1)
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
	} else {
		parts = strings.Split(s, by)
	}
	for len(parts) > 0 && parts[len(parts)-1] == "" { // what Ruby's split does, and so every Liquid
		parts = parts[:len(parts)-1]
	}
	for _, part := range parts {
		made.items = append(made.items, textValue(part))
	}
	return made, nil
}

func join(x *exec, in value, a arguments) (value, error) {
	by := " "
	if len(a.all) > 0 {
		var err error
		if by, err = a.all[0].print(); err != nil {
			return value{}, describe("argument 1 %w", err)
		}
	}
	if in.kind != listKind {
		return value{}, errNoList
	}
	var out strings.Builder
	for i, item := range in.list() {
		s, err := item.print()
		if err != nil {
			return value{}, describe("item %d of the list %w", i, err)
		}
		if i > 0 {
			out.WriteString(by)
		}
		out.WriteString(s)
		if out.Len() > MaxValueBytes || !x.step(1) {
			break // whoever called finds it too long
		}
	}
	return textValue(out.String()), nil
}
