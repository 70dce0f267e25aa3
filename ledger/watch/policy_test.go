package watch_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger/watch"
)

func TestAPolicyIsReadStrictly(t *testing.T) {
	const alice, bob = `"a":"9d0e7b0b5681bb326cceb3b4d3ae395b"`, `"b":"5bf8d97a1bc921e3dd41a053fffac09e"`
	for policy, want := range map[string]string{
		`{}`: "",
		`{"products":{"pump":{"release":{"keys":{` + alice + `,` + bob + `},"threshold":2}}}}`: "",
		`{"devices_per_hour":{"wipe":0}}`: "",
		`{"off":["device.suspect"],"administrators":["person:admin"],"devices":10,"warrant_devices":3}`: "",
		`{"administrator":["x"]}`:                                                                                         "administrator",
		`{"Administrators":["x"]}`:                                                                                        "Administrators",
		`{"administrators":["x"],"administrators":[]}`:                                                                    "twice",
		`{"products":{"pump":{"releases":{}}}}`:                                                                           "releases",
		`{"products":{"pump":{"release":{"Keys":{` + alice + `},"threshold":1}}}}`:                                        "Keys",
		`{"products":{"pump":{"release":{"keys":{` + alice + `},"threshold":2}}}}`:                                        "threshold 2 of 1 keys",
		`{"products":{"pump":{"release":{"keys":{` + alice + `},"threshold":0}}}}`:                                        "threshold 0",
		`{"products":{"pump":{"release":{"keys":{` + alice + `,"c":"9d0e7b0b5681bb326cceb3b4d3ae395b"},"threshold":1}}}}`: "under two names",
		`{"products":{"pump":{"release":{"keys":{"a":"9D0E7B0B5681BB326CCEB3B4D3AE395B"},"threshold":1}}}}`:               "lower-case",
		`{"products":{"pump":{"quorum":2,"witnesses":{"w":"` + strings.Repeat("00", 32) + `"}}}}`:                         "quorum 2 of 1 witnesses",
		`{"products":{"pump":{"witnesses":{"w":"00"}}}}`:                                                                  "32 bytes",
		`{"authorities":{"root":"00"}}`:                                                                                   "32 bytes",
		`{"off":["release.singers"]}`:                                                                                     "release.singers",
		`{"devices_per_hour":{"dance":1}}`:                                                                                "dance",
		`{"devices_per_hour":{"wipe":-1}}`:                                                                                "-1",
		`{"devices":-1}`:                                                                                                  "-1",
		`{"products":null}`:                                                                                               "products",
		`[]`:                                                                                                              "array",
		`{} {}`:                                                                                                           "follows",
		``:                                                                                                                "EOF",
		`{"administrators":["` + strings.Repeat("x", 1<<20) + `"]}`:                                                       "at most",
		`{"products":` + strings.Repeat(`{"x":`, 20) + `1` + strings.Repeat(`}`, 20) + `}`: "too deep",
	} {
		p, err := watch.DecodePolicy([]byte(policy))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", policy, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.200s: %v, want %q", policy, err, want)
		case want == "":
			again, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if q, err := watch.DecodePolicy(again); err != nil || !reflect.DeepEqual(p, q) || p.Digest() != q.Digest() {
				t.Errorf("%s is written as %s: %v", policy, again, err)
			}
		}
	}
}

// What is proposed is a policy file.
func TestAProposedPolicyIsRead(t *testing.T) {
	_, j := ordinary(t).judged(watch.Policy{})
	data, err := json.Marshal(j.Memory().Propose())
	must(t, err)
	if _, err := watch.DecodePolicy(data); err != nil {
		t.Errorf("%s: %v", data, err)
	}
	// Also of a log in which nothing has happened yet.
	data, err = json.Marshal(watch.NewMemory().Propose())
	must(t, err)
	if _, err := watch.DecodePolicy(data); err != nil {
		t.Errorf("%s: %v", data, err)
	}
}
