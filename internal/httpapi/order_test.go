package httpapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/wire"
)

// stationOf is the descriptor of a station that nobody has, and its fingerprint.
func stationOf(t *testing.T, oem string) (descriptor, pin []byte) {
	t.Helper()
	key := factorytest.Key(t)
	s := wire.Station{Name: "st-1", OEM: oem, Module: "soft", Serial: "1", WrapAlg: wire.WrapOAEPSHA256, ContentAlg: wire.WrapOAEPSHA256}
	var err error
	if s.RecordKey, err = wire.SPKIOf(key.Public()); err != nil {
		t.Fatal(err)
	}
	for _, to := range []*[]byte{&s.WrapKey, &s.ContentKey} {
		k, err := rsa.GenerateKey(rand.Reader, 3072)
		if err != nil {
			t.Fatal(err)
		}
		if *to, err = wire.SPKIOf(k.Public()); err != nil {
			t.Fatal(err)
		}
	}
	payload, err := wire.EncodeStation(s)
	if err != nil {
		t.Fatal(err)
	}
	if descriptor, err = wire.Sign1(wire.TypeStation, payload, key); err != nil {
		t.Fatal(err)
	}
	id := s.ID()
	return descriptor, id[:]
}

// breaking is a component that ends with an error.
type breaking struct{ io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("the disk is gone")
	}
	return n, err
}

func (breaking) Close() error { return nil }

// The file of an order is longer than any answer that is kept: it is given as it is sealed, and one that breaks off is seen to.
func TestAnOrdersFileIsGivenAsItIsSealed(t *testing.T) {
	b := newBench(t)
	server := httptest.NewServer(b.h)
	defer server.Close()
	app := bytes.Repeat([]byte("firmware"), 1<<20)
	sum := sha256.Sum256(app)
	b.oem.Publish(t, wire.Component{Name: "app", Kind: wire.KindExec, Version: "2.0.0", Size: uint64(len(app)), Digest: sum[:], Health: wire.HealthAlive})
	descriptor, pin := stationOf(t, b.oem.ID)
	reads, broken := 0, 0
	b.firmware = &httpapi.Firmware{Bundle: b.oem.Bundle, Release: b.oem.Release, Payload: func(context.Context, string) (io.ReadCloser, error) {
		if reads++; reads == broken {
			return breaking{bytes.NewReader(app[:6<<20])}, nil
		}
		return io.NopCloser(bytes.NewReader(app)), nil
	}}
	params := factorytest.Params()
	params.Flash = wire.Flash{Size: 32 << 20, Erase: 4096, Slots: 2, SlotSize: 16 << 20}
	until := time.Now().Add(time.Hour)
	place := func(id string) (int, []byte, error) {
		spec, err := json.Marshal(httpapi.OrderRequest{
			ID: id, Product: factorytest.Product, Hardware: factorytest.Hardware, Quota: 1, NotAfter: until,
			Descriptor: descriptor, StationPin: pin, Release: strings.Repeat("0", 64), Params: params,
		})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/api/v1/orders", bytes.NewReader(spec))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer factory")
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "key of "+id)
		resp, err := server.Client().Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return resp.StatusCode, data, err
	}
	code, data, err := place("ord-1")
	var got httpapi.OrderReply
	if err != nil || code != http.StatusOK || json.Unmarshal(data, &got) != nil || got.Order.ID != "ord-1" || len(got.File) < len(app) {
		t.Fatalf("%d, %d bytes, %v", code, len(data), err)
	}
	f, err := wire.DecodeOrderFile(got.File)
	if err != nil {
		t.Fatal(err)
	}
	o, err := wire.VerifyOrder(f.Order, b.oem.OrderKey.Public())
	if err != nil || f.CheckSealed(o) != nil {
		t.Fatalf("%v, %v", err, f.CheckSealed(o))
	}
	if code, data, err := place("ord-1"); err != nil || code != http.StatusConflict || !bytes.Contains(data, []byte("idempotency.answer-lost")) {
		t.Errorf("asked for again with its key: %d, %.200s, %v", code, data, err)
	}
	for at, made := range []bool{false, false, true} { // the release's digests, the sealing, the file
		reads, broken = 0, at+1
		id := "ord-broken-" + string(rune('a'+at))
		code, data, err := place(id)
		if err == nil && code == http.StatusOK {
			t.Errorf("read %d broke off: %d bytes were given as an answer", at+1, len(data))
		}
		row, err := b.oem.Service.Get(t.Context(), b.oem.Caller, id)
		if (err == nil) != made || made && row.State != factory.Open {
			t.Errorf("read %d broke off: order %+v, %v", at+1, row.State, err)
		}
	}
	if row, err := b.oem.Service.Cancel(t.Context(), b.oem.Caller, "ord-broken-c", "its file broke off"); err != nil || row.State != factory.Cancelled {
		t.Errorf("%v, %v", row.State, err)
	}
}

// zeros is a component of so many bytes that nobody holds.
func zeros(size int64) io.ReadCloser { return io.NopCloser(io.LimitReader(nothing{}, size)) }

type nothing struct{}

func (nothing) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// heap is what is in use, once what is not was taken away.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// An order never takes a second person: who asks for one to be proposed gets its file as everybody does, and the server does not hold it.
func TestAProposedOrdersFileIsNotHeldEither(t *testing.T) {
	const size, most = 64 << 20, 32 << 20
	b := newBench(t)
	server := httptest.NewServer(b.h)
	defer server.Close()
	all := sha256.New()
	if _, err := io.Copy(all, zeros(size)); err != nil {
		t.Fatal(err)
	}
	b.oem.Publish(t, wire.Component{Name: "app", Kind: wire.KindExec, Version: "2.0.0", Size: size, Digest: all.Sum(nil), Health: wire.HealthAlive})
	b.firmware = &httpapi.Firmware{Bundle: b.oem.Bundle, Release: b.oem.Release, Payload: func(context.Context, string) (io.ReadCloser, error) { return zeros(size), nil }}
	descriptor, pin := stationOf(t, b.oem.ID)
	params := factorytest.Params()
	params.Flash = wire.Flash{Size: 256 << 20, Erase: 4096, Slots: 2, SlotSize: 100 << 20}
	for _, key := range []string{"", "with a key"} {
		spec, err := json.Marshal(httpapi.OrderRequest{
			ID: "ord-" + strconv.Itoa(len(key)), Product: factorytest.Product, Hardware: factorytest.Hardware, Quota: 1, NotAfter: time.Now().Add(time.Hour),
			Descriptor: descriptor, StationPin: pin, Release: strings.Repeat("0", 64), Params: params,
		})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/api/v1/orders", bytes.NewReader(spec))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer factory")
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(httpapi.HeaderPropose, "is it so?")
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		before := heap()
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Create(filepath.Join(t.TempDir(), "answer")) // not here either
		if err != nil {
			t.Fatal(err)
		}
		for {
			if now := heap(); now > before+most {
				t.Errorf("%q: %d MiB more are in use than before", key, (now-before)>>20)
				break
			}
			if _, err := io.CopyN(file, resp.Body, 8<<20); err != nil {
				break
			}
		}
		if err := errors.Join(resp.Body.Close(), file.Close()); err != nil || resp.StatusCode != http.StatusOK || t.Failed() {
			t.Fatal(resp.StatusCode, err)
		}
		data, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		var got httpapi.OrderReply
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		f, err := wire.DecodeOrderFile(got.File)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := wire.VerifyOrder(f.Order, b.oem.OrderKey.Public()); err != nil || f.CheckSealed(o) != nil || o.Header.ID != got.Order.ID {
			t.Errorf("%q: %v, %v", key, err, f.CheckSealed(o))
		}
	}
}
