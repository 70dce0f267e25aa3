// Command verify checks a device's chain of custody by a trust file, see README.md: verify TRUST.json DEVICE.hallmark
//
// Over all stages. It shares nothing with Hallmark. What is not as it must be makes it panic, and verify turns that into a refusal.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

type trust struct { // whom to believe: it is yours, and not from the file that is checked
	Logs []struct {
		Name, Origin string
		Key          []byte
	}
	Witnesses []string // name+hash+base64(type, key)
	Quorum    int
}

// checkpoint gives size and root of a note that its log signed and a quorum of witnesses cosigned (c2sp.org/tlog-cosignature).
func (t trust) checkpoint(name, note string, out io.Writer) (size uint64, root tlog.Hash) {
	text, signatures, _ := strings.Cut(note, "\n\n")
	text += "\n"
	part, signed, cosigned := strings.Split(text, "\n"), false, map[string]bool{}
	for line := range strings.Lines(signatures) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		must(len(f) == 3 && f[0] == "\u2014", "signature line %q", line)
		id, sig := fmt.Sprintf("%x", b64(f[2])[:4]), b64(f[2])[4:]
		for _, l := range t.Logs {
			sum := sha256.Sum256(append([]byte(l.Origin+"\n\x01"), l.Key...))
			if l.Name == name && l.Origin == part[0] && l.Origin == f[1] && id == fmt.Sprintf("%x", sum[:4]) {
				signed = ed25519.Verify(l.Key, []byte(text), sig)
			}
		}
		for _, w := range t.Witnesses {
			v := strings.SplitN(w, "+", 3) // a key of another type than 4 takes more than the standard library, and does not count
			if k := b64(v[2]); v[0] == f[1] && v[1] == id && k[0] == 4 {
				cosignature := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), text)
				cosigned[v[0]] = ed25519.Verify(k[1:], []byte(cosignature), sig[8:])
				must(cosigned[v[0]], "cosignature of %s", v[0])
			}
		}
	}
	size, err := strconv.ParseUint(part[1], 10, 62)
	must(err == nil && len(part) == 4 && signed && t.Quorum > 0 && len(cosigned) >= t.Quorum, "log %q: signed %t, cosigned by %d", name, signed, len(cosigned))
	fmt.Fprintf(out, "%s: size %d, root %s, cosigned by %d witnesses\n", part[0], size, part[2], len(cosigned))
	return size, tlog.Hash(b64(part[2]))
}

// root computes a tree's root from entries, and from the hashes of the subtrees that hold none of them, left to right.
func root(from, size uint64, entries *[]dict, hashes *[]byte) (h tlog.Hash) {
	switch {
	case len(*entries) == 0 || (*entries)[0][1].(uint64)-from >= size:
		h, *hashes = tlog.Hash((*hashes)[:tlog.HashSize]), (*hashes)[tlog.HashSize:]
		return h
	case size == 1:
		h, *entries = tlog.RecordHash((*entries)[0][2].([]byte)), (*entries)[1:]
		return h
	}
	k := uint64(1) << (bits.Len64(size-1) - 1)
	left := root(from, k, entries, hashes)
	return tlog.NodeHash(left, root(from+k, size-k, entries, hashes))
}

// life checks what the station and the device itself signed, in the order of the events log.
type life struct {
	device, station, attest any
	seq, head               any // of the device's own log
	cut                     bool
}

func (v *life) check(f dict) {
	switch data := f[8]; f[3] {
	case "device.provisioned":
		r, id := signed(data, v.station, "hallmark-production-record"), sha256.Sum256(v.station.([]byte))
		must(r[6] == v.device && bytes.Equal(id[:], r[2].([]byte)) && v.attest == nil, "production record of %s", r[6])
		v.attest = r[10].(dict)[2]
	case "device.log.anchored":
		b := signed(data, v.attest, "hallmark-device-log")
		follows := v.seq == nil && (v.cut || b[2] == uint64(1)) || v.seq != nil && b[2] == v.seq.(uint64)+1 && bytes.Equal(b[4].([]byte), v.head.([]byte))
		must(b[1] == v.device && follows, "the device's own log does not go on from %v at %v", v.seq, b[2])
		v.seq, v.head = b[3], b[5]
	case "retire.wiped":
		must(signed(data, v.attest, "hallmark-wipe-receipt")[1] == v.device, "wipe receipt")
	}
}

func verify(trusted, file []byte, out io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("does NOT verify: %v", p)
		}
	}()
	var t trust
	c, facts, causes := decode(file).(dict), map[string]dict{}, map[string]string{}
	must(json.Unmarshal(trusted, &t) == nil && c[1] == uint64(1), "trust file, or version %v", c[1])
	for k, x := range c {
		_, number := x.(uint64)
		must(k <= 5 || k <= 7 && number, "unknown part %d", k)
	}
	v := life{device: c[2], station: c[3], cut: c[6] != nil}
	for _, l := range list(c[4]) {
		entries, hashes := list(l[4]), l[5].([]byte)
		size, want := t.checkpoint(l[1].(string), l[3].(string), out)
		must(l[2] == size && root(0, size, &entries, &hashes) == want && len(entries)+len(hashes) == 0, "entries of %s are not those under its checkpoint", l[1])
		for _, e := range list(l[4]) {
			f, at := decode(e[2].([]byte)).(dict), fmt.Sprint(l[1], "/", e[1])
			facts[at] = f
			if cause, ok := f[7].(dict); ok {
				causes[at] = fmt.Sprint(cause[1], "/", cause[2])
			}
			fmt.Fprintf(out, "%s %-12s %-24s by %q about %q %s\n", time.UnixMilli(int64(f[4].(uint64))).UTC().Format(time.RFC3339), at, f[3], f[5], f[6], causes[at])
			v.check(f)
		}
	}
	for at, cause := range causes {
		must(facts[cause] != nil, "%s: its cause, %s, is not here", at, cause)
	}
	for i, m := range list(c[5]) { // a command's or warrant's set of devices is a Merkle tree of its own, over their IDs
		set := decode(decode(facts[fmt.Sprint("control/", m[1])][8].([]byte)).([]any)[2].([]byte)).(dict)[4].(dict)
		at, path := m[2].(dict)[1].(uint64), hashes(m[2].(dict)[2])
		err := tlog.CheckRecord(path, int64(set[2].(uint64)), tlog.Hash(set[1].([]byte)), int64(at), tlog.RecordHash([]byte(c[2].(string))))
		must(err == nil && (i == 0 || m[1].(uint64) > list(c[5])[i-1][1].(uint64)), "control/%d does not name the device: %v", m[1], err)
	}
	must(v.attest != nil, "no production record of device %v", v.device)
	_, err = fmt.Fprintln(out, "verifies")
	return err
}

func main() {
	trusted, err := os.ReadFile(append(os.Args, "", "")[1])
	file, err2 := os.ReadFile(append(os.Args, "", "")[2])
	if err = errors.Join(err, err2, verify(trusted, file, os.Stdout)); err != nil {
		log.Fatal(err)
	}
}
