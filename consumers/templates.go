package consumers

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// HeaderVersion tells on the record of a template's id which version it is a copy of. Its value is a decimal number.
const HeaderVersion = "version"

// TemplateVersionOf is the version that a record of whisper.templates is a copy of; 0 where it says none: upstream wrote
// it without `whisper templates apply`.
func TemplateVersionOf(rec *kgo.Record) int64 {
	value, _ := Header(rec, HeaderVersion)
	n, _ := strconv.ParseInt(string(value), 10, 64) // 0 on an error
	return max(n, 0)
}
