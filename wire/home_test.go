package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
)

// offered is a trust bundle that somebody has in force, with its first one's signatures, and the offer of it.
func offered(t testing.TB, server string) HomeOffer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := SPKIOf(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	role, log := KeySet{Keys: [][]byte{spki}, Threshold: 1}, LogTrust{Origin: "o", Key: make([]byte, 32)}
	payload, err := EncodeBundle(Bundle{
		Version: 3, Product: "pump", Root: role, Release: role, Warrant: role, Directive: role, Control: log, Events: log, Anchors: [][]byte{{1}},
		Suites: []string{"HM-P256-1"}, Witnesses: []NamedKey{}, Telemetry: []StreamKey{},
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := NewThreshold(TypeBundle, payload, k)
	if err != nil {
		t.Fatal(err)
	}
	return HomeOffer{V: 1, Bundle: env, Server: server}
}

func TestAnOfferIsReadAsItWasMade(t *testing.T) {
	o := offered(t, "https://own.example:8443")
	data, err := EncodeHomeOffer(o)
	if err != nil {
		t.Fatal(err)
	}
	got, b, err := DecodeHomeOffer(data)
	if err != nil || got.Server != o.Server || !bytes.Equal(got.Bundle, o.Bundle) || b.Version != 3 {
		t.Fatalf("%+v, bundle %d, %v", got, b.Version, err)
	}
	home, err := got.Home()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := home.Opens(o.Bundle); err != nil {
		t.Errorf("what it offers: %v", err)
	}
	if _, err := home.Opens(offered(t, o.Server).Bundle); err == nil {
		t.Error("another bundle opens as the one that was offered")
	}
}

func TestAnAddressThatNoDeviceCouldCall(t *testing.T) {
	for _, s := range []string{
		"", "own.example", "http://own.example", "https://", "https://own.example/path", "https://u:p@own.example", "https://own.example?x=1", "https://own.example#x",
		"https://" + strings.Repeat("a", MaxHomeServer), "https://\x00",
	} {
		if CheckHomeServer(s) == nil {
			t.Errorf("%q is taken", s)
		}
		if _, err := EncodeHomeOffer(HomeOffer{V: 1, Server: s}); err == nil {
			t.Errorf("an offer with %q is made", s)
		}
	}
	for _, s := range []string{"https://own.example", "https://own.example:8443", "https://[::1]:1"} {
		if err := CheckHomeServer(s); err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyAWarrantToRehomeHasAHome(t *testing.T) {
	set, err := SetOf([]string{"d1"})
	if err != nil {
		t.Fatal(err)
	}
	home := &Home{Bundle: make([]byte, 32), Server: "https://own.example"}
	for name, c := range map[string]struct {
		act  Act
		home *Home
		good bool
	}{
		"to rehome": {ActRehome, home, true}, "to rehome, and not where": {ActRehome, nil, false}, "to wipe": {ActWipe, home, false},
		"with half a digest": {ActRehome, &Home{Bundle: make([]byte, 31), Server: home.Server}, false}, "without address": {ActRehome, &Home{Bundle: home.Bundle}, false},
	} {
		w := Warrant{ID: "w", Product: "pump", Act: c.act, Devices: set, Issued: 1, Expires: 2, Home: c.home}
		if _, err := EncodeWarrant(w); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ClassOf(ActRehome) != Fatal || !NeedsWarrant(ActRehome) {
		t.Error("to rehome a device takes no warrant")
	}
}

func FuzzDecodeHomeOffer(f *testing.F) {
	data, err := EncodeHomeOffer(offered(f, "https://own.example"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		o, b, err := DecodeHomeOffer(data)
		if err != nil {
			return
		}
		if b.Version == 0 || CheckHomeServer(o.Server) != nil {
			t.Errorf("%+v, bundle %d", o, b.Version)
		}
		again, err := EncodeHomeOffer(o)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x is read, and written as %x, %v", data, again, err)
		}
	})
}

func FuzzDecodeHomeHint(f *testing.F) {
	again(f, DecodeHomeHint, EncodeHomeHint, HomeHint{Record: []byte{1, 2}, Server: "https://own.example"})
}

func TestAHintOfAHomeSaysSomething(t *testing.T) {
	for name, h := range map[string]HomeHint{"nothing": {}, "no address": {Server: "own.example"}, "too much": {Record: make([]byte, MaxTrust+1)}} {
		if _, err := EncodeHomeHint(h); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}
