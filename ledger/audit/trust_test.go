package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"filippo.io/mldsa"
)

// unsigned takes the witnesses' lines off a checkpoint, and gives its body.
func unsigned(f map[string][]byte) (body string) {
	note := string(f["checkpoint"])
	text, sigs, _ := strings.Cut(note, "\n\n")
	line, _, _ := strings.Cut(sigs, "\n")
	f["checkpoint"] = []byte(text + "\n\n" + line + "\n")
	return text + "\n"
}

// A witness with keys of two kinds, and one that signs twice, has still seen the log once.
func TestAWitnessCountsOnce(t *testing.T) {
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	f := files(t, 5)
	body := unsigned(f)
	both := cosign("wa", key(2), 7, body) + cosignPQ(t, "wa", pq, 7, body)
	f["checkpoint"] = append(f["checkpoint"], both+both...)
	p := policy()
	p.Witnesses = append(p.Witnesses, Witness{"wa", MLDSA44, pq.PublicKey().Bytes()})
	if r, err := Verify(t.Context(), p, fetcher(f)); err == nil || !strings.Contains(err.Error(), "cosigned by 1 witnesses, want 2") {
		t.Errorf("%+v, %v", r, err)
	}
	f["checkpoint"] = append(f["checkpoint"], cosign("wb", key(3), 7, body)...)
	if r, err := Verify(t.Context(), p, fetcher(f)); err != nil || len(r.Cosigned) != 2 {
		t.Errorf("with another: %+v, %v", r, err)
	}
}

// cosignPQ cosigns with a message put together here, byte by byte.
func cosignPQ(t *testing.T, name string, k *mldsa.PrivateKey, at uint64, body string) string {
	t.Helper()
	lines := strings.Split(body, "\n")
	size, _ := strconv.ParseUint(lines[1], 10, 64)
	root, _ := base64.StdEncoding.DecodeString(lines[2])
	var m bytes.Buffer
	m.WriteString("subtree/v1\n\x00")
	m.WriteString(string(rune(len(name))) + name)
	m.Write(binary.BigEndian.AppendUint64(nil, at))
	m.WriteString(string(rune(len(lines[0]))) + lines[0])
	m.Write(make([]byte, 8))
	m.Write(binary.BigEndian.AppendUint64(nil, size))
	m.Write(root)
	sig, err := k.Sign(nil, m.Bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw := binary.BigEndian.AppendUint32(nil, keyHash(name, MLDSA44, k.PublicKey().Bytes()))
	raw = append(binary.BigEndian.AppendUint64(raw, at), sig...)
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// A witness with an ML-DSA-44 key alone counts as any other, and every flipped bit of its signature is found.
func TestAPostQuantumWitnessCounts(t *testing.T) {
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	f := files(t, 5)
	body := unsigned(f)
	f["checkpoint"] = append(f["checkpoint"], cosignPQ(t, "wq", pq, 7, body)...)
	p := policy()
	p.Quorum, p.Witnesses = 1, []Witness{{"wq", MLDSA44, pq.PublicKey().Bytes()}}
	if r, err := Verify(t.Context(), p, fetcher(f)); err != nil || len(r.Cosigned) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	good := f["checkpoint"]
	for i := bytes.LastIndexByte(good, ' ') * 8; i < len(good)*8; i += 7 { // every byte, each bit in its turn
		f["checkpoint"] = bytes.Clone(good)
		f["checkpoint"][i/8] ^= 1 << (i % 8)
		if _, err := Verify(t.Context(), p, fetcher(f)); err == nil {
			t.Fatalf("bit %d flipped, and the log verifies", i)
		}
	}
}

// A policy that would believe too much is refused before anything is read.
func TestAPolicyThatProvesNothingIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *Policy)
		want   string
	}{
		{"no quorum", func(p *Policy) { p.Quorum = 0 }, "quorum 0"},
		{"a negative quorum", func(p *Policy) { p.Quorum = -1 }, "quorum -1"},
		{"more than there are", func(p *Policy) { p.Quorum = 3 }, "quorum 3, with 2 witnesses"},
		{"one key under two names", func(p *Policy) { p.Witnesses[1].Key = public(2) }, "wa and wb have the same key"},
		{"more than there are names", func(p *Policy) { p.Witnesses[1].Name = "wa" }, "quorum 2, with 1 witnesses"},
		{"a key of another kind", func(p *Policy) { p.Witnesses[1].Type = 1 }, "type 0x01"},
		{"the log as its own witness", func(p *Policy) { p.Witnesses[1].Key = public(1) }, "witness wb has the log's own key"},
		{"a short key", func(p *Policy) { p.Witnesses[1].Key = public(3)[:31] }, "key of witness wb"},
		{"no log key", func(p *Policy) { p.Key = nil }, "key of the log"},
		{"no origin", func(p *Policy) { p.Origin = "" }, "origin"},
	} {
		f, p := files(t, 5), policy()
		unsigned(f)
		c.change(&p)
		if r, err := Verify(t.Context(), p, fetcher(f)); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.name, r, err, c.want)
		}
	}
}

// A log that was cut, or written anew, by somebody who holds all its keys is found by who kept an older checkpoint.
func TestAnEarlierCheckpointMustStillHold(t *testing.T) {
	other := func(n int) map[string][]byte { // a log of the same keys with other entries
		f := files(t, n+1)
		cp := files(t, n)["checkpoint"]
		body := unsigned(map[string][]byte{"checkpoint": cp})
		lines := strings.Split(body, "\n")
		sum := bytes.Repeat([]byte{9}, 32)
		body = strings.Join([]string{lines[0], lines[1], base64.StdEncoding.EncodeToString(sum), ""}, "\n")
		raw := append([]byte{0, 0, 0, 0}, ed25519.Sign(key(1), []byte(body))...)
		id := keyHash(origin, 1, public(1))
		raw[0], raw[1], raw[2], raw[3] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		f["checkpoint"] = []byte(body + "\n\u2014 " + origin + " " + base64.StdEncoding.EncodeToString(raw) + "\n")
		return f
	}
	now := files(t, 300)
	for _, n := range []int{1, 2, 255, 256, 257, 299, 300} {
		old := files(t, n)
		if r, err := Verify(t.Context(), policy(), fetcher(now), old["checkpoint"]); err != nil || len(r.Since) != 1 || r.Since[0] != uint64(n) {
			t.Errorf("since %d: %+v, %v", n, r, err)
		}
		unsigned(old) // the log's own word is enough to hold it to
		if _, err := Verify(t.Context(), policy(), fetcher(now), old["checkpoint"]); err != nil {
			t.Errorf("since %d, not cosigned: %v", n, err)
		}
		if _, err := Verify(t.Context(), policy(), fetcher(now), other(n)["checkpoint"]); !errors.Is(err, ErrRewritten) {
			t.Errorf("since another %d: %v", n, err)
		}
	}
	if _, err := Verify(t.Context(), policy(), fetcher(files(t, 299)), now["checkpoint"]); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut: %v", err)
	}
	forged := bytes.Replace(files(t, 5)["checkpoint"], []byte("\n5\n"), []byte("\n6\n"), 1)
	for name, cp := range map[string][]byte{"forged": forged, "empty": nil, "no note": []byte("hello")} {
		_, err := Verify(t.Context(), policy(), fetcher(now), cp)
		if err == nil || errors.Is(err, ErrRewritten) || errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), "earlier checkpoint") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func vkey(name string, b byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, keyHash(name, Ed25519, public(b)), base64.StdEncoding.EncodeToString(append([]byte{Ed25519}, public(b)...)))
}

func trustJSON(t testing.TB) string {
	t.Helper()
	b64 := func(b byte) string { return base64.StdEncoding.EncodeToString(public(b)) }
	return fmt.Sprintf(`{"logs":[{"name":"events","origin":%q,"key":%q}],"witnesses":[%q,%q],"quorum":2}`, origin, b64(1), vkey("wa", 2), vkey("wb", 3))
}

func TestATrustFileIsReadStrictly(t *testing.T) {
	good := trustJSON(t)
	got, err := DecodeTrust([]byte(good))
	if err != nil || len(got.Logs) != 1 || got.Policy(0).Quorum != 2 || got.Policy(0).Origin != origin || len(got.Policy(0).Witnesses) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := Verify(t.Context(), got.Policy(0), fetcher(files(t, 3))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, want string }{
		{"a misspelt field", `"quorum"`, `"qorum"`, "qorum"},
		{"other letters", `"quorum"`, `"Quorum"`, "Quorum"},
		{"an unknown field of a log", `"name"`, `"nickname"`, "nickname"},
		{"no quorum", `,"quorum":2`, ``, "quorum 0"},
		{"too high a quorum", `"quorum":2`, `"quorum":3`, "quorum 3"},
		{"twice", `"quorum":2`, `"quorum":2,"quorum":1`, "twice"},
		{"a witness twice", vkey("wb", 3), vkey("wa", 2), "same key"},
		{"a witness's key under another name", `"wa+`, `"wc+`, "hash"},
		{"a witness's key cut", vkey("wa", 2), vkey("wa", 2)[:21], "base64"},
		{"something behind it", `"quorum":2}`, `"quorum":2} {}`, "follows"},
		{"no log", good[strings.Index(good, "[")+1 : strings.Index(good, "]")], "", "no log"},
		{"a log that is a path", `"events"`, `"../events"`, "../events"},
		{"a log that is not there", `[{`, `[{"name":"events","origin":"x","key":""},{`, "log events"},
	} {
		bad := strings.Replace(good, c.from, c.to, 1)
		if bad == good {
			t.Fatalf("%s: nothing changed", c.name)
		}
		if got, err := DecodeTrust([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.name, got, err, c.want)
		}
	}
	if _, err := DecodeTrust([]byte(good + strings.Repeat(" ", maxTrust))); err == nil {
		t.Error("read without end")
	}
}

// What is read as trust can be used: each of its policies is sound.
func FuzzDecodeTrust(f *testing.F) {
	f.Add([]byte(trustJSON(f)))
	f.Add([]byte(`{"logs":[],"witnesses":[],"quorum":1}`))
	f.Add([]byte(`{"quorum":1,"quorum":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeTrust(data)
		if err != nil {
			return
		}
		if len(got.Logs) == 0 {
			t.Fatal("no log")
		}
		for i := range got.Logs {
			if err := got.Policy(i).check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What is read as a witness's key can be verified by.
func FuzzParseWitness(f *testing.F) {
	f.Add(vkey("wa", 2))
	f.Add("a++")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWitness(text)
		if err != nil {
			return
		}
		if err := w.sound(); err != nil {
			t.Fatal(err)
		}
		_ = w.check(origin+"\n1\nAAAA\n", make([]byte, 72))
	})
}
