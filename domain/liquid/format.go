package liquid

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/currency"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"

	languages "github.com/klivvr/whisper/domain/locale"
)

var formatFilters = []filter{
	{name: "number", needs: NeedNumber, named: []string{"decimals", "digits"}, prepare: prepareDigits, apply: formatNumber},
	{name: "percent", needs: NeedNumber, named: []string{"decimals", "digits"}, prepare: prepareDigits, apply: formatPercent},
	{name: "currency", needs: NeedNumber, least: 1, most: 1, named: []string{"decimals", "digits", "symbol"}, prepare: prepareCurrency, apply: formatCurrency},
	{name: "plural", needs: NeedNumber, named: pluralNames, prepare: preparePlural, apply: formatPlural},
	{name: "date", needs: NeedText, least: 0, most: 1, named: []string{"zone", "digits"}, prepare: prepareDate, apply: formatDate},
}

// numberFormat is how a language writes numbers. It is learnt once from what x/text prints for a few numbers. x/text
// formats only float64, which does not hold the digits of every amount, and takes twenty times as long.
type numberFormat struct {
	digits                       [10]string
	decimal, group, minus        string
	primary, secondary           int // digits in the last group and in the others; 0: there are no groups
	least                        int // digits before the last group that make it one; 0 is 1
	percentBefore, percentBehind string
	symbolBefore                 bool
	symbolSpace                  string
}

// arabicWithLatin are the Arabic locales that have Latin digits in CLDR; all others have Arabic ones. x/text uses Latin
// digits for every locale with a region.
var arabicWithLatin = []string{"ar-AE", "ar-DZ", "ar-EH", "ar-LY", "ar-MA", "ar-TN"}

// newNumberFormat returns the format of a language. digits is a numbering system such as latn or arab, or "" for that
// of the language.
func newNumberFormat(tag language.Tag, digits string) *numberFormat {
	name := tag.String()
	base, _ := tag.Base()
	if digits == "" && base.String() == "ar" && tag.TypeForKey("nu") == "" {
		digits = "arab"
		if slices.Contains(arabicWithLatin, name) {
			digits = "latn"
		}
	}
	if digits != "" {
		if with, err := tag.SetTypeForKey("nu", digits); err == nil {
			tag = with
		}
	}
	p := message.NewPrinter(tag)
	write := func(n any, options ...number.Option) string {
		return withoutMarks(p.Sprint(number.Decimal(n, options...)))
	}
	f := &numberFormat{}
	for i := range f.digits {
		f.digits[i] = write(i)
	}
	f.minus = strings.TrimSuffix(write(-1), f.digits[1])
	f.decimal = between(write(1.5, number.Scale(1)), f.digits[1], f.digits[5])
	f.grouping(write(123456789))
	percent := withoutMarks(p.Sprint(number.Percent(0.05)))
	f.percentBefore, f.percentBehind, _ = strings.Cut(percent, f.digits[5])
	f.symbolSpace = "\u00a0"
	if space, ok := languages.Inherited(name, symbolBefore); ok && space != symbolBehind {
		f.symbolBefore, f.symbolSpace = true, space
	}
	f.least, _ = languages.Inherited(name, groupsFrom)
	return f
}

func between(s, before, behind string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, before), behind)
}

// grouping learns the groups from 123456789 as written.
func (f *numberFormat) grouping(written string) {
	var groups []int
	n := 0
	for written != "" {
		if i := slices.IndexFunc(f.digits[:], func(d string) bool { return strings.HasPrefix(written, d) }); i >= 0 {
			n, written = n+1, written[len(f.digits[i]):]
			continue
		}
		_, size := utf8.DecodeRuneInString(written)
		f.group, written = written[:size], written[size:]
		groups, n = append(groups, n), 0
	}
	if len(groups) > 0 {
		f.primary, f.secondary = n, groups[len(groups)-1]
	}
}

// write formats a number that [isNumber] accepts, with so many decimals; -1: those that it has. Halves are rounded away
// from zero.
func (f *numberFormat) write(text string, decimals int) string {
	if decimals >= 0 && decimalsOf(text) > decimals {
		n, _ := new(big.Rat).SetString(text)
		text = n.FloatString(decimals)
	}
	negative := strings.HasPrefix(text, "-") && strings.Trim(text, "-0.") != ""
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	var out strings.Builder
	out.Grow(2 * len(text))
	if negative {
		out.WriteString(f.minus)
	}
	groups := f.primary > 0 && len(whole) >= f.primary+f.least
	for i := range len(whole) {
		if left := len(whole) - i; i > 0 && groups && left >= f.primary && (left-f.primary)%f.secondary == 0 {
			out.WriteString(f.group)
		}
		out.WriteString(f.digits[whole[i]-'0'])
	}
	if decimals < 0 {
		decimals = len(fraction)
	}
	for i := range decimals {
		if i == 0 {
			out.WriteString(f.decimal)
		}
		d := byte('0')
		if i < len(fraction) {
			d = fraction[i]
		}
		out.WriteString(f.digits[d-'0'])
	}
	return out.String()
}

// localize writes a text with the digits of the language.
func (f *numberFormat) localize(s string) string {
	if f.digits[0] == "0" {
		return s
	}
	var out strings.Builder
	for i := range len(s) {
		if isDigit(s[i]) {
			out.WriteString(f.digits[s[i]-'0'])
		} else {
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

// literalOf is the text of a named argument that is a literal. It is an error if the argument is a variable.
func (c *call) literalOf(name string) (text string, given bool, err error) {
	for _, a := range c.named {
		if a.name != name {
			continue
		}
		if a.value.root != noRoot || a.value.literal.kind != textKind {
			return "", true, fmt.Errorf("%s must be a text in quotes", name)
		}
		return a.value.literal.text, true, nil
	}
	return "", false, nil
}

var digitNames = []string{"latn", "arab", "arabext", "deva", "beng"}

// formatOf reads the argument digits.
func formatOf(t *Text, c *call) (*numberFormat, error) {
	digits, given, err := c.literalOf("digits")
	switch {
	case err != nil:
		return nil, err
	case !given:
		return t.locale.numbers(), nil
	case !slices.Contains(digitNames, digits):
		return nil, fmt.Errorf("unknown digits %s; known are %s", quoted(digits), strings.Join(digitNames, ", "))
	}
	return newNumberFormat(t.locale.tag, digits), nil
}

func prepareDigits(t *Text, c *call) (any, error) { return formatOf(t, c) }

// decimals is the value of that argument, or otherwise.
func (a arguments) decimals(otherwise int) (int, error) {
	v := a.get("decimals")
	if v.kind == missingKind {
		return otherwise, nil
	}
	return decimalsArgument(v)
}

func formatNumber(_ *exec, in value, a arguments) (value, error) {
	if _, err := in.number(); err != nil {
		return value{}, err
	}
	decimals, err := a.decimals(-1)
	if err != nil {
		return value{}, err
	}
	return textValue(a.ready.(*numberFormat).write(in.text, decimals)), nil
}

func formatPercent(_ *exec, in value, a arguments) (value, error) {
	n, err := in.number()
	if err != nil {
		return value{}, err
	}
	decimals, err := a.decimals(-1)
	if err != nil {
		return value{}, err
	}
	hundred, err := numberValue(n.Mul(n, big.NewRat(100, 1)))
	if err != nil {
		return value{}, err
	}
	f := a.ready.(*numberFormat)
	return textValue(f.percentBefore + f.write(hundred.text, decimals) + f.percentBehind), nil
}

// money is what is known of a call of currency while parsing.
type money struct {
	format *numberFormat
	code   bool // its code instead of its symbol
}

var errCurrency = errors.New("is not a currency of ISO 4217 such as EGP")

func prepareCurrency(t *Text, c *call) (any, error) {
	if o := c.args[0]; o.root == noRoot {
		if _, err := currency.ParseISO(o.literal.text); err != nil || o.literal.kind != textKind {
			return nil, fmt.Errorf("%s %w", quoted(o.written()), errCurrency)
		}
	}
	symbol, given, err := c.literalOf("symbol")
	if err != nil {
		return nil, err
	}
	if given && symbol != "code" && symbol != "symbol" {
		return nil, fmt.Errorf(`unknown symbol %s; known are "symbol" and "code"`, quoted(symbol))
	}
	f, err := formatOf(t, c)
	return money{f, symbol == "code"}, err
}

func formatCurrency(x *exec, in value, a arguments) (value, error) {
	if _, err := in.number(); err != nil {
		return value{}, err
	}
	unit, err := currency.ParseISO(a.all[0].text)
	if err != nil {
		return value{}, describe("%q %w", quoted(a.all[0].text), errCurrency)
	}
	scale, _ := currency.Standard.Rounding(unit)
	decimals, err := a.decimals(scale)
	if err != nil {
		return value{}, err
	}
	m := a.ready.(money)
	symbol := unit.String()
	if !m.code {
		symbol = x.text.locale.symbol(unit)
	}
	return textValue(m.format.money(m.format.write(in.text, decimals), symbol)), nil
}

// money puts the symbol on the side where the language writes it; the sign comes first. A symbol of letters is
// separated by a space.
func (f *numberFormat) money(amount, symbol string) string {
	if !f.symbolBefore {
		return amount + f.symbolSpace + symbol
	}
	sign := ""
	if rest := strings.TrimPrefix(amount, f.minus); rest != amount {
		sign, amount = f.minus, rest
	}
	space := f.symbolSpace
	if last, _ := utf8.DecodeLastRuneInString(symbol); space == "" && (unicode.IsLetter(last) || last == '.') {
		space = "\u00a0"
	}
	return sign + symbol + space + amount
}

// symbol is the symbol of a currency in the language. There are 300 currencies, so the cache has a bound.
func (l *locale) symbol(unit currency.Unit) string {
	if s, ok := l.symbols.Load(unit); ok {
		return s.(string)
	}
	s := withoutMarks(message.NewPrinter(l.tag).Sprint(currency.Symbol(unit)))
	l.symbols.Store(unit, s)
	return s
}
