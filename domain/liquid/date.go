package liquid

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain/rfc3339"
)

// dating is what is known of a call of date while parsing.
type dating struct {
	format *numberFormat
	style  string // "": it is a variable
	zone   string // "": the user's
}

var dateStyles = []string{"short", "medium", "long", "full", "time", "iso"}

// dateVerbs are the verbs of strftime that print the same in every language.
const dateVerbs = "YymdejHMSBbAaz%"

func prepareDate(t *Text, c *call) (any, error) {
	d := dating{style: "medium"}
	var err error
	if len(c.args) > 0 {
		d.style = ""
		if o := c.args[0]; o.root == noRoot {
			d.style = o.literal.text
			if err := checkStyle(t.locale, d.style); err != nil {
				return nil, err
			}
		}
	} else if err := checkStyle(t.locale, d.style); err != nil {
		return nil, err
	}
	zone, given, err := c.literalOf("zone")
	switch {
	case err != nil:
		return nil, err
	case given && (zone == "" || t.known != nil && !t.known(zone)):
		return nil, fmt.Errorf("%q is not a time zone of the IANA database such as Africa/Cairo", quoted(zone))
	case !given:
		t.perUser = true
	}
	d.zone = zone
	d.format, err = formatOf(t, c)
	return d, err
}

func checkStyle(l *locale, style string) error {
	if style == "iso" {
		return nil
	}
	names := false
	if !strings.Contains(style, "%") {
		for _, known := range dateStyles {
			names = names || known == style
		}
		if !names {
			return describe("unknown style %q; known are %s, and patterns such as %%d.%%m.%%Y", quoted(style), strings.Join(dateStyles, ", "))
		}
	}
	for i := 0; i < len(style); i++ {
		if style[i] != '%' {
			continue
		}
		i++
		if i < len(style) && style[i] == '-' {
			i++
		}
		if i >= len(style) || strings.IndexByte(dateVerbs, style[i]) < 0 {
			return describe("pattern %q: after %% stands one of %s", quoted(style), strings.Join(strings.Split(dateVerbs, ""), " "))
		}
		names = names || strings.IndexByte("BbAa", style[i]) >= 0
	}
	if names && l.dates == nil {
		return describe("how %s writes dates is not known: use iso, or a pattern of numbers such as %%d.%%m.%%Y", l.name)
	}
	return nil
}

func formatDate(x *exec, in value, a arguments) (value, error) {
	d := a.ready.(dating)
	if d.style == "" {
		style, err := a.all[0].print()
		if err != nil {
			return value{}, describe("argument 1 %w", err)
		}
		if err := checkStyle(x.text.locale, style); err != nil {
			return value{}, err
		}
		d.style = style
	}
	x.step(len(d.style) / 2) // a name costs more to find than to write
	at, zoned, err := x.run.instant(in)
	if err != nil {
		return value{}, err
	}
	if zoned {
		zone, err := x.run.zone(d.zone)
		if err != nil {
			return value{}, err
		}
		at = at.In(zone)
	}
	if d.style == "iso" {
		if !zoned {
			return textValue(at.Format(time.DateOnly)), nil
		}
		return textValue(at.Format(time.RFC3339)), nil
	}
	return textValue(d.format.localize(withoutMarks(writeDate(x.text.locale, d.style, at)))), nil
}

// instant reads a time: RFC 3339, seconds since 1970, "now"; or a day without a time, which is the same in every zone.
func (r *Run) instant(in value) (at time.Time, zoned bool, err error) {
	if in.kind == textKind {
		if in.text == "now" {
			return r.Now, true, nil
		}
		if at, err := rfc3339.Parse(in.text); err == nil {
			return at, true, nil
		}
		if at, err := time.Parse(time.DateOnly, in.text); err == nil {
			return at, false, nil
		}
	}
	seconds, err := strconv.ParseInt(in.text, 10, 64)
	switch {
	case in.kind != textKind && in.kind != numberKind || err != nil:
		return at, false, fmt.Errorf("is not a time such as 2026-11-24T09:00:00Z, nor seconds since 1970")
	case seconds >= 100_000_000_000 || seconds < -62_135_596_800:
		return at, false, fmt.Errorf("is not a time: seconds since 1970 are expected, not milliseconds")
	}
	return time.Unix(seconds, 0), true, nil
}

func writeDate(l *locale, style string, at time.Time) string {
	switch style {
	case "short":
		return l.dates().FmtDateShort(at)
	case "medium":
		return l.dates().FmtDateMedium(at)
	case "long":
		return l.dates().FmtDateLong(at)
	case "full":
		return l.dates().FmtDateFull(at)
	case "time":
		return l.dates().FmtTimeShort(at)
	}
	var out strings.Builder
	for i := 0; i < len(style); i++ {
		if style[i] != '%' {
			out.WriteByte(style[i])
			continue
		}
		i++
		plain := style[i] == '-'
		if plain {
			i++
		}
		s := verb(l, style[i], at)
		if plain {
			s = strings.TrimPrefix(s, "0")
		}
		out.WriteString(s)
		if out.Len() > MaxValueBytes {
			break // whoever called finds it too long
		}
	}
	return out.String()
}

func verb(l *locale, v byte, at time.Time) string {
	switch v {
	case 'Y':
		return strconv.Itoa(at.Year())
	case 'y':
		return at.Format("06")
	case 'm':
		return at.Format("01")
	case 'd':
		return at.Format("02")
	case 'e':
		return at.Format("_2")
	case 'j':
		return at.Format("002")
	case 'H':
		return at.Format("15")
	case 'M':
		return at.Format("04")
	case 'S':
		return at.Format("05")
	case 'B':
		return l.dates().MonthWide(at.Month())
	case 'b':
		return l.dates().MonthAbbreviated(at.Month())
	case 'A':
		return l.dates().WeekdayWide(at.Weekday())
	case 'a':
		return l.dates().WeekdayAbbreviated(at.Weekday())
	case 'z':
		return at.Format("-0700")
	default:
		return "%"
	}
}
