package store_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/pki"
)

// crowdOf is how many certificates BenchmarkRevokeMany has: HALLMARK_CROWD, or a million, which takes most of a minute to fill.
func crowdOf() int {
	if n, err := strconv.Atoi(os.Getenv("HALLMARK_CROWD")); err == nil && n > 0 {
		return n
	}
	return 1_000_000
}

func benchID(i int) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[8:], uint64(i)+1)
	return hex.EncodeToString(b[:])
}

// crowd puts n devices with a certificate each into the store, as rows: what the certificates say does not matter here.
func (w *authorityWorld) crowd(n int) {
	w.t.Helper()
	const page = 5000
	for from := 0; from < n; from += page {
		var ids []string
		for i := from; i < min(from+page, n); i++ {
			ids = append(ids, benchID(i))
		}
		list, err := json.Marshal(ids)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.db.Write(w.t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, doc)
				SELECT l.value, 'pump', 'A', 'active', 'genuine', 'o', 's', 1, 'soft', 1, 1, '{}' FROM list($1) AS l`, string(list)); err != nil {
				return err
			}
			_, err := tx.Exec(`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
				SELECT $2 || '/' || l.value, l.value, 'ldevid', $2, l.value, $3, 1, $4, 0, $5 FROM list($1) AS l`,
				string(list), w.operational.SKI(), make([]byte, 32), store.Millis(w.now.Add(240*time.Hour)), make([]byte, 600))
			return err
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// BenchmarkRevokeMany revokes 10,000 of many devices in a store, and has the lists that they are in signed and stored anew, until the last is
// fresh; beside it is what signing those lists alone costs.
func BenchmarkRevokeMany(b *testing.B) { benchRevokeMany(b, storetest.Open(b)) }

// BenchmarkRevokeManyPostgres is the same on PostgreSQL, which takes some minutes to fill.
func BenchmarkRevokeManyPostgres(b *testing.B) { benchRevokeMany(b, storetest.OpenPostgres(b)) }

func benchRevokeMany(b *testing.B, db *store.DB) {
	w := authorityWorldOn(b, db)
	n := crowdOf()
	w.crowd(n)
	s := w.service
	if err := s.KeepLists(b.Context()); err != nil {
		b.Fatal(err)
	}
	const many = 10_000
	b.ResetTimer()
	for run := range b.N {
		if (run+1)*many > n {
			b.Fatalf("a crowd of %d is too small", n)
		}
		var ids []string
		for i := range many {
			ids = append(ids, benchID(run*many+i))
		}
		done, err := s.RevokeMany(b.Context(), access.Internal("bench"), pki.Bulk{Devices: ids, Reason: pki.KeyCompromise}, false)
		if err != nil || done.Devices != many {
			b.Fatalf("%+v, %v", done, err)
		}
		if err := errors.Join(s.Refresh(b.Context()), s.KeepLists(b.Context())); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		w.fresh(b, (run+1)*many)
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10k")
}

// fresh checks that the published lists hold so many certificates in all.
func (w *authorityWorld) fresh(b *testing.B, want int) {
	b.Helper()
	got := 0
	for i := range pki.DefaultShards {
		l, err := w.service.List(b.Context(), pki.ListID{Issuer: w.operational.SKI(), Shard: i})
		if err != nil {
			b.Fatal(err)
		}
		parsed, err := x509.ParseRevocationList(l.DER)
		if err != nil {
			b.Fatal(err)
		}
		got += len(parsed.RevokedCertificateEntries)
	}
	if got != want {
		b.Fatalf("%d certificates are in the lists, want %d", got, want)
	}
}

// BenchmarkReferenceLists signs 256 lists of 10,000 certificates in all, and does nothing else.
func BenchmarkReferenceLists(b *testing.B) {
	k := newKey(b)
	root, err := pki.NewRoot("acme", k, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		for range pki.DefaultShards {
			l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
			for i := range 10_000 / pki.DefaultShards {
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
					SerialNumber: new(big.Int).Lsh(big.NewInt(int64(i+1)), 120), RevocationTime: time.Now(), ReasonCode: pki.KeyCompromise,
				})
			}
			if _, err := x509.CreateRevocationList(rand.Reader, l, root.Cert, k); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10k")
}
