package witness_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// The example of the specification.
const exampleRequest = `old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
`

func TestTheRequestIsTheSpecifications(t *testing.T) {
	r, err := witness.ParseRequest([]byte(exampleRequest))
	if err != nil || r.Old != 20852014 || len(r.Proof) != 4 || !strings.HasPrefix(string(r.Note), "example.com/behind-the-sofa\n20852163\n") {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := string(r.Encode()); got != exampleRequest {
		t.Errorf("written again: %q", got)
	}
}

func TestARequestIsReadStrictly(t *testing.T) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"
	if _, err := witness.ParseRequest([]byte("old 5\n" + strings.Repeat(hash, 63) + "\nx")); err != nil {
		t.Errorf("63 hashes: %v", err)
	}
	for name, bad := range map[string]string{
		"nothing":             "",
		"no empty line":       "old 5\n" + hash,
		"no size":             "old \n\nx",
		"another word":        "new 5\n\nx",
		"a leading zero":      "old 05\n\nx",
		"a sign":              "old +5\n\nx",
		"a space behind":      "old 5 \n\nx",
		"CRLF":                "old 5\r\n\r\nx",
		"larger than any":     "old 9223372036854775808\n\nx",
		"64 hashes":           "old 5\n" + strings.Repeat(hash, 64) + "\nx",
		"a short hash":        "old 5\nAAAA\n\nx",
		"base64 of two forms": "old 5\n" + strings.Replace(hash, "A=", "B=", 1) + "\nx",
		"too large":           "old 5\n\n" + strings.Repeat("x", witness.MaxRequest),
	} {
		if r, err := witness.ParseRequest([]byte(bad)); !errors.Is(err, witness.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for _, bad := range []string{"", "5", "05\n", "-1\n", "5\n\n", "x\n", "9223372036854775808\n"} {
		if n, err := witness.ParseOldSize([]byte(bad)); err == nil {
			t.Errorf("size %q: %d", bad, n)
		}
	}
}

// What is read is written again as it was.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(exampleRequest))
	f.Add([]byte("old 0\n\n"))
	f.Add([]byte("7\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := witness.ParseRequest(data); err == nil && !bytes.Equal(r.Encode(), data) {
			t.Fatalf("%q became %q", data, r.Encode())
		}
		_, _ = witness.ParseOldSize(data)
	})
}
