package store_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// BenchmarkReverse and BenchmarkReversePostgres are what it takes to say which of 25,000 devices have a component that every release has inside, and how many have a part of a
// lot that every order was made of, with the first page of them. HALLMARK_DEVICES is another
// number: a million takes PostgreSQL some minutes to write. Its rows are counted and its pages marked (VACUUM, ANALYZE) before it is asked, as a server does by itself soon after they came.
func BenchmarkReverse(b *testing.B) { reverse(b, storetest.Open(b), false) }

func BenchmarkReversePostgres(b *testing.B) { reverse(b, storetest.OpenPostgres(b), true) }

func reverse(b *testing.B, db *store.DB, postgres bool) {
	if postgres {
		if err := db.Write(b.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(crowd.BlobIsBytea)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
	n := 25_000
	if text := os.Getenv("HALLMARK_DEVICES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	if err := crowd.Fill(b.Context(), db, n, time.Now(), func(int) {}); err != nil {
		b.Fatal(err)
	}
	const lot = "everywhere"
	if err := db.Parts().PutLot(b.Context(), parts.Lot{ID: lot, Part: "flash", Number: "1"}); err != nil {
		b.Fatal(err)
	}
	orders, err := db.Orders(b.Context(), "", "", 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range orders {
		if err := db.Parts().Name(b.Context(), o.ID, []string{lot}, ledger.New(ledger.KindOrderLotsNamed, time.Now(), "person:ann", o.ID, nil, []byte("{}"))); err != nil {
			b.Fatal(err)
		}
	}
	if postgres {
		if err := db.Vacuum(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	of, _, _ := osv.Of(crowd.Component)
	b.Run("component", func(b *testing.B) {
		for b.Loop() {
			uses, err := db.Supply().Uses(b.Context(), of.Base(), of.Name, nil)
			if err != nil || supply.Devices(uses) < int64(n)/2 {
				b.Fatal(supply.Devices(uses), err)
			}
		}
	})
	b.Run("lot", func(b *testing.B) {
		for b.Loop() {
			devices, err := db.Parts().Count(b.Context(), lot, nil)
			if err != nil || devices < int64(n)/2 {
				b.Fatal(devices, err)
			}
			if page, err := db.Parts().Devices(b.Context(), lot, nil, "", 51); err != nil || len(page) != 51 {
				b.Fatal(len(page), err)
			}
		}
	})
}
