package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
)

func TestAMarkStandsAndFallsWithItsWrite(t *testing.T) {
	db := storetest.Open(t)
	put := func(ctx context.Context, id string) error {
		return db.PutProduct(ctx, product.Product{ID: id}, ledger.New(ledger.KindProductCreated, time.Now(), "test", id, nil, nil))
	}
	kept := func(key string) (once.Kept, bool) {
		t.Helper()
		k, ok, err := db.Kept(t.Context(), "person:a", key)
		if err != nil {
			t.Fatal(err)
		}
		return k, ok
	}
	m := once.Mark{Caller: "person:a", Key: "k", Request: [32]byte{1}}
	if err := put(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}

	// A write that fails takes its mark with it, and the request's next one brings it again.
	ctx, req := once.With(t.Context(), &m, nil)
	if err := put(ctx, "taken"); !errors.Is(err, product.ErrExists) {
		t.Fatal(err)
	}
	if _, ok := kept("k"); ok || req.Settled() {
		t.Error("a write that failed left its mark")
	}
	// What is written down of a request is not what it asked for.
	if err := db.Record(ctx, access.Decision{Caller: "person:a"}); err != nil || req.Settled() {
		t.Errorf("a denial settled the request: %v", err)
	}
	if err := errors.Join(put(ctx, "pump"), put(ctx, "valve")); err != nil || !req.Settled() {
		t.Fatalf("two writes of one request: %v", err)
	}
	if k, ok := kept("k"); !ok || k.Done || k.Request != m.Request {
		t.Errorf("kept %+v, %v", k, ok)
	}

	// Somebody else with the same mark, in another process perhaps, changes nothing.
	other, _ := once.With(t.Context(), &m, nil)
	if err := put(other, "fan"); !errors.Is(err, once.ErrRunning) {
		t.Errorf("the same mark again: %v", err)
	}
	if _, err := db.Product(t.Context(), "fan"); !errors.Is(err, product.ErrNotFound) {
		t.Errorf("and was done: %v", err)
	}

	a := once.Answer{Status: 200, Type: "application/json", Tag: `"t"`, Facts: "control/00", Body: []byte("{}")}
	if err := db.PutAnswer(t.Context(), m, a); err != nil {
		t.Fatal(err)
	}
	if k, _ := kept("k"); !k.Done || string(k.Answer.Body) != "{}" || k.Answer.Tag != a.Tag || k.Answer.Facts != a.Facts {
		t.Errorf("kept %+v", k)
	}
	if err := db.PutAnswer(t.Context(), m, a); err == nil {
		t.Error("an answer was given twice")
	}
	if err := db.ForgetMarks(t.Context(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, ok := kept("k"); !ok {
		t.Error("a young mark was forgotten")
	}
	if err := db.ForgetMarks(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, ok := kept("k"); ok {
		t.Error("an old mark was not forgotten")
	}
}

func TestNothingIsDoneToWhatHasChanged(t *testing.T) {
	db := storetest.Open(t)
	if err := db.PutProduct(t.Context(), product.Product{ID: "pump"}, ledger.New(ledger.KindProductCreated, time.Now(), "test", "pump", nil, nil)); err != nil {
		t.Fatal(err)
	}
	tag, err := db.Tag(t.Context(), once.Product, "pump")
	if err != nil || tag == "" {
		t.Fatal(tag, err)
	}
	if none, err := db.Tag(t.Context(), once.Product, "none"); none != "" || err != nil {
		t.Errorf("what is not there has the tag %q, %v", none, err)
	}
	done := 0
	try := func(e once.Expectation) error {
		ctx, _ := once.Expect(t.Context(), e)
		return db.Write(ctx, func(*store.Tx) error { done++; return nil })
	}
	for _, e := range []once.Expectation{
		{Thing: once.Product, ID: "pump", Tags: []string{"other"}},
		{Thing: once.Product, ID: "pump", Tags: []string{}},
		{Thing: once.Product, ID: "none", Tags: []string{tag}},
		{Thing: once.Product, ID: "none", Tags: []string{""}},
	} {
		if err := try(e); !errors.Is(err, once.ErrChanged) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if err := try(once.Expectation{Thing: "nonsense", ID: "pump"}); err == nil {
		t.Error("a thing nobody knows has a tag")
	}
	if done != 0 {
		t.Errorf("%d writes were done", done)
	}
	if err := try(once.Expectation{Thing: once.Product, ID: "pump", Tags: []string{"other", tag}}); err != nil || done != 1 {
		t.Errorf("%d, %v", done, err)
	}
}
