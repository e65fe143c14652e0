package record_test

import (
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain/record"
)

func TestStrictMembers(t *testing.T) {
	t.Parallel()
	for value, complaint := range map[string]string{
		`{}`:                                       "",
		` {"id":1,"x":{"ID":2}} `:                  "",
		`{"id":"\ud83d\ude00"}`:                    "",
		`{"id":1,"id":2}`:                          `twice`,
		`{"id":1,"\u0069d":2}`:                     `twice`,
		`{"id":1,"ID":2}`:                          `"ID"`,
		`{"Id":2}`:                                 `"Id"`,
		`{"id":1,"x":[{"a":1,"a":2}]}`:             `twice`,
		`{"id":"\ud800"}`:                          `surrogate`,
		`{"id":["a",{"b":["\ud800"]}]}`:            `surrogate`,
		`{"id":"\ud800-\ufffd"}`:                   `surrogate`,
		`{"id":"\udc00\ud800"}`:                    `surrogate`,
		`{"id":"\ud800\u0041"}`:                    `surrogate`,
		`{"id":"\ud800\\udc00"}`:                   `surrogate`,
		`{"id":"\\ud800"}`:                         ``,
		`{"id":"\ud83d\ude00\uD83D\uDE00-\ufffd"}`: ``,
		`{"\udc00":1}`:                             `surrogate`,
		"{\"id\":\"\xff\"}":                        `UTF-8`,
		`{"id":1}{}`:                               `behind`,
		`{"id":1`:                                  `JSON`,
		`[]`:                                       `object`,
		`null`:                                     `object`,
		``:                                         `blank`,
		`{"id":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`: `deeper`,
	} {
		members, err := record.StrictMembers([]byte(value), "the thing", "id")
		if (err == nil) != (complaint == "") || err != nil && !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %v, %v", value, members, err)
		}
	}
	members, err := record.StrictMembers([]byte(`{"id": "a" , "n":[1, 2]}`), "the thing")
	if err != nil || string(members["id"]) != `"a"` || string(members["n"]) != `[1, 2]` || len(members) != 2 {
		t.Errorf("got %q, %v", members, err)
	}
}
