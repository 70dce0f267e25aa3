package profile

import (
	"encoding/asn1"
	"testing"
	"time"
)

func TestDatesHaveTheFormOfRFC5280(t *testing.T) {
	at := func(y int) time.Time { return time.Date(y, 1, 2, 3, 4, 5, 0, time.UTC) }
	for _, c := range []struct {
		tag  int
		text string
		at   time.Time
		ok   bool
	}{
		{asn1.TagUTCTime, "490102030405Z", at(2049), true},
		{asn1.TagGeneralizedTime, "20500102030405Z", at(2050), true},
		{asn1.TagGeneralizedTime, "20490102030405Z", at(2049), false},
		{asn1.TagUTCTime, "500102030405Z", at(2050), false},
		{asn1.TagUTCTime, "4901020304Z", at(2049), false},
		{asn1.TagUTCTime, "490102030405+0100", at(2049), false},
		{asn1.TagGeneralizedTime, "20500102030405.5Z", at(2050), false},
	} {
		ok := true
		lintDate("date", asn1.RawValue{Tag: c.tag, Bytes: []byte(c.text)}, c.at, func(string, ...any) { ok = false })
		if ok != c.ok {
			t.Errorf("%s: %v", c.text, ok)
		}
	}
}
