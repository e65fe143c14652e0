package decide

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// numbered counts how often it is compared.
type numbered struct {
	number   int
	compared *int
}

func (n *numbered) compare(o *numbered) int {
	*n.compared++
	return cmp.Compare(n.number, o.number)
}

// TestInOrderIsASortedSet puts in and takes out whatever, in any order, and compares with a sorted list.
func TestInOrderIsASortedSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var o inOrder[*numbered]
		var want []int
		compared := 0
		numbers := rapid.SliceOfN(rapid.IntRange(0, 999), 1, 2000).Draw(t, "numbers")
		if rapid.Bool().Draw(t, "as they come") {
			slices.Sort(numbers)
		}
		for _, n := range numbers {
			if o.put(&numbered{n, &compared}); !slices.Contains(want, n) {
				want = append(want, n)
			}
		}
		for _, n := range rapid.SliceOf(rapid.IntRange(0, 999)).Draw(t, "removed") {
			o.remove(&numbered{n, &compared})
			want = slices.DeleteFunc(want, func(w int) bool { return w == n })
		}
		for range rapid.IntRange(0, 3).Draw(t, "first ones") {
			if slices.Sort(want); len(want) > 0 {
				if o.first().number != want[0] {
					t.Fatalf("%d is the first, want %d", o.first().number, want[0])
				}
				o.removeFirst()
				want = want[1:]
			}
		}
		slices.Sort(want)
		var got, back []int
		for n := range o.all() {
			got = append(got, n.number)
		}
		for n := range o.backward() {
			back = append(back, n.number)
		}
		if slices.Reverse(back); !slices.Equal(got, want) || !slices.Equal(back, want) || len(want) == 0 && o.first() != nil {
			t.Fatalf("%v, backward %v, want %v", got, back, want)
		}
		for _, run := range o.runs {
			if len(run) == 0 || len(run) > maxRun {
				t.Fatalf("a run of %d", len(run))
			}
		}
	})
}

// TestInOrderLooksAtFew: what one item costs grows with the logarithm of how many there are, wherever it stands.
func TestInOrderLooksAtFew(t *testing.T) {
	t.Parallel()
	const many = 40_000
	for name, order := range map[string]func(i int) int{
		"as they come": func(i int) int { return i },
		"backward":     func(i int) int { return many - i },
		"any": func() func(int) int {
			all := rand.New(rand.NewPCG(1, 2)).Perm(many)
			return func(i int) int { return all[i] }
		}(),
	} {
		var o inOrder[*numbered]
		compared, items := 0, make([]*numbered, many)
		for i := range items {
			items[i] = &numbered{order(i), &compared}
			o.put(items[i])
		}
		for _, item := range items {
			o.remove(item)
		}
		if o.first() != nil {
			t.Errorf("%s: there is one left", name)
		}
		if each := compared / (2 * many); each > 20 { // log2(40,000) is 15.3
			t.Errorf("%s: %d comparisons for each", name, each)
		}
	}
}
