package watch_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/watch"
)

// A policy that is read says what was written: written again and read again it is the same.
func FuzzDecodePolicy(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"off":["kind.unknown"]}`, `{"Off":["kind.unknown"]}`, `{"off":["x"]}`, `{"administrators":["a"],"administrators":["b"]}`, `{"devices":5}`, `{"devices":-5}`,
		`{"products":{"p":{"release":{"keys":{"a":"00112233445566778899aabbccddeeff"},"threshold":1},"quorum":2,"witnesses":{}}}}`,
		`{"products":{"p":{"release":{"keys":{"a":"00112233445566778899AABBCCDDEEFF"},"threshold":1}}}}`, `{"devices_per_hour":{"wipe":0,"dance":1}}`,
		`{"products":null}`, `[]`, `{} {}`, `{"authorities":{"x":"00"}}`, `null`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := watch.DecodePolicy(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := watch.DecodePolicy(again)
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%s is read, and written as %s: %v", data, again, err)
		}
	})
}

// Whatever stands in an entry, it is judged and remembered without harm.
func FuzzEntry(f *testing.F) {
	for _, k := range []ledger.Kind{ledger.KindAccessChanged, ledger.KindCertIssued, ledger.KindReleasePublished, ledger.KindKeyCreated, "nobody.knows"} {
		e := encode(f, factOf(ledger.Control, k, time.Unix(9, 0), "a", "s", []byte(`{"roles":["admin"]}`)))
		f.Add(e, true)
		f.Add(e, false)
	}
	f.Fuzz(func(t *testing.T, entry []byte, control bool) {
		j, log := watch.NewJudge(watch.Policy{}, nil), ledger.Events
		if control {
			log = ledger.Control
		}
		j.Entry(ledger.Ref{Log: log}, entry, time.Unix(100, 0))
		data, err := j.Memory().Encode()
		if err != nil {
			t.Fatal(err)
		}
		m, err := watch.DecodeMemory(data, watch.Policy{})
		if err != nil || !reflect.DeepEqual(m, j.Memory()) {
			t.Fatalf("not what was remembered: %v\n%s", err, data)
		}
	})
}

func FuzzDecodeMemory(f *testing.F) {
	good, err := watch.NewMemory().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"v":1,"sets":{"key":"AA=="}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := watch.DecodeMemory(data, watch.Policy{}); err == nil {
			watch.NewJudge(watch.Policy{}, m).Entry(ledger.Ref{Log: ledger.Control}, nil, time.Unix(1, 0))
		}
	})
}
