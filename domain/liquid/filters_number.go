package liquid

import (
	"math/big"
	"strconv"
)

// The filters of numbers calculate exactly, as banks do: 0.1 | plus: 0.2 is 0.3.
var numberFilters = []filter{
	{name: "abs", needs: NeedNumber, apply: onNumber(func(n *big.Rat) *big.Rat { return n.Abs(n) })},
	{name: "floor", needs: NeedNumber, apply: onNumber(func(n *big.Rat) *big.Rat { return n.SetInt(floor(n)) })},
	{name: "ceil", needs: NeedNumber, apply: onNumber(func(n *big.Rat) *big.Rat {
		down := floor(n.Neg(n))
		return n.SetInt(down.Neg(down))
	})},
	{name: "round", needs: NeedNumber, least: 0, most: 1, apply: round},
	{name: "plus", needs: NeedNumber, least: 1, most: 1, apply: withNumber(func(a, b *big.Rat) (*big.Rat, error) { return a.Add(a, b), nil })},
	{name: "minus", needs: NeedNumber, least: 1, most: 1, apply: withNumber(func(a, b *big.Rat) (*big.Rat, error) { return a.Sub(a, b), nil })},
	{name: "times", needs: NeedNumber, least: 1, most: 1, apply: withNumber(func(a, b *big.Rat) (*big.Rat, error) { return a.Mul(a, b), nil })},
	{name: "divided_by", needs: NeedNumber, least: 1, most: 1, apply: divide},
	{name: "modulo", needs: NeedNumber, least: 1, most: 1, apply: withNumber(modulo)},
	{name: "at_least", needs: NeedNumber, least: 1, most: 1, apply: withNumber(func(a, b *big.Rat) (*big.Rat, error) {
		if a.Cmp(b) < 0 {
			return b, nil
		}
		return a, nil
	})},
	{name: "at_most", needs: NeedNumber, least: 1, most: 1, apply: withNumber(func(a, b *big.Rat) (*big.Rat, error) {
		if a.Cmp(b) > 0 {
			return b, nil
		}
		return a, nil
	})},
}

func onNumber(f func(*big.Rat) *big.Rat) func(*exec, value, arguments) (value, error) {
	return func(_ *exec, in value, _ arguments) (value, error) {
		n, err := in.number()
		if err != nil {
			return value{}, err
		}
		return numberValue(f(n))
	}
}

func withNumber(f func(a, b *big.Rat) (*big.Rat, error)) func(*exec, value, arguments) (value, error) {
	return func(_ *exec, in value, args arguments) (value, error) {
		a, err := in.number()
		if err != nil {
			return value{}, err
		}
		b, err := args.all[0].number()
		if err != nil {
			return value{}, describe("the argument %w", err)
		}
		n, err := f(a, b)
		if err != nil {
			return value{}, err
		}
		return numberValue(n)
	}
}

// floor is the greatest whole number that is not above n.
func floor(n *big.Rat) *big.Int { return new(big.Int).Div(n.Num(), n.Denom()) }

// divide returns a whole number if both numbers are written as whole ones, as in every Liquid: 7 by 2 is 3, by 2.0 it
// is 3.5.
func divide(x *exec, in value, a arguments) (value, error) {
	whole := decimalsOf(in.text) == 0 && decimalsOf(a.all[0].text) == 0
	return withNumber(func(a, b *big.Rat) (*big.Rat, error) {
		if b.Sign() == 0 {
			return nil, describe("there is no dividing by 0")
		}
		if a.Quo(a, b); whole {
			a.SetInt(floor(a))
		}
		return a, nil
	})(x, in, a)
}

func modulo(a, b *big.Rat) (*big.Rat, error) {
	if b.Sign() == 0 {
		return nil, describe("there is no dividing by 0")
	}
	times := new(big.Rat).SetInt(floor(new(big.Rat).Quo(a, b)))
	return a.Sub(a, times.Mul(times, b)), nil
}

// round halves away from zero.
func round(_ *exec, in value, a arguments) (value, error) {
	n, err := in.number()
	if err != nil {
		return value{}, err
	}
	decimals := 0
	if len(a.all) > 0 {
		if decimals, err = decimalsArgument(a.all[0]); err != nil {
			return value{}, err
		}
	}
	return value{kind: numberKind, text: n.FloatString(decimals)}, nil
}

const maxDecimals = 10

func decimalsArgument(v value) (int, error) {
	n, err := strconv.ParseUint(v.text, 10, 8)
	if err != nil || n > maxDecimals {
		return 0, describe("%q is not a number of decimals from 0 to %d", quoted(v.text), maxDecimals)
	}
	return int(n), nil
}
