package httpapi

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAnObjectSaysAThingOnce(t *testing.T) {
	for doc, ok := range map[string]bool{
		`{"roles":["viewer"]}`:                            true,
		`{"a":{"x":1},"b":{"x":2},"c":[{"x":1},{"x":2}]}`: true,
		`{"a":["a","a"],"b":"a","c":{},"d":[]}`:           true,
		`["a","a"]`:                                       true,
		`"a"`:                                             true,
		`{"a":1`:                                          true, // the decoder's to refuse
		`{"roles":["viewer"],"roles":["admin"]}`:          false,
		`{"roles":["viewer"],"Roles":["admin"]}`:          false,
		`{"roles":["viewer"],"\u0072oles":["admin"]}`:     false,
		`{"a":{},"b":[[]],"A":1}`:                         false,
		`{"query":{"x":1},"name":"n","query":{"y":1}}`:    false,
		`[{"a":[{"b":1,"c":{"d":1},"b":2}]}]`:             false,
		strings.Repeat("[", 64) + strings.Repeat("]", 64): true,
		strings.Repeat("[", 65) + strings.Repeat("]", 65): false,
		strings.Repeat(`{"a":`, 1_000_000):                false,
	} {
		if err := oneReading([]byte(doc)); (err == nil) != ok {
			t.Errorf("%.60s: %v", doc, err)
		}
	}
}

func FuzzOneReading(f *testing.F) {
	for _, doc := range []string{`{}`, `[]`, `{"a":1,"A":2}`, `{"a":{"b":[{}]},"c":"\u0000"}`, `{"a"`, `[[[`, `{"a":1}{"a":2}`} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if oneReading(data) != nil || json.Unmarshal(data, &v) != nil {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := oneReading(again); err != nil {
			t.Errorf("%q is taken, and %q is not: %v", data, again, err)
		}
	})
}
