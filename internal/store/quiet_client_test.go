package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/ddi"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// pumps are the products of a client's world.
type pumps struct{}

func (pumps) Get(context.Context, access.Caller, string) (product.Product, error) {
	return product.Product{ID: "pump", Hardware: []string{"A"}}, nil
}

// polling is a client of hawkBit's protocol that polls, and who counts what that asks of the database.
type polling struct {
	*caller
	db      *store.DB
	clients *legacy.Service
	handler http.Handler
	id      string // its device
	auth    string
	now     time.Time
	looks   func() // at the clock, once; nil: nothing happens then
}

const clientName = "press-7"

func newPolling(t testing.TB) *polling {
	t.Helper()
	p := &polling{now: time.Now().UTC()}
	clock := func() time.Time {
		if happens := p.looks; happens != nil {
			p.looks = nil
			happens()
		}
		return p.now
	}
	var svc *device.Service
	p.db, svc, _, p.caller = quietBench(t, func(c *device.Config) {
		d, _ := c.Wakes.(*store.DB)
		c.Offers, c.Now = d.Legacy(), clock
	})
	guard, err := access.NewGuard(silentAudit{})
	if err != nil {
		t.Fatal(err)
	}
	if p.clients, err = legacy.New(legacy.Config{Guard: guard, Store: p.db.Legacy(), Products: pumps{}, Now: clock}); err != nil {
		t.Fatal(err)
	}
	p.handler = ddi.Handler(ddi.Config{Base: "https://u.example", Poll: 5 * time.Minute, Soon: time.Second, Clients: p.clients, Offers: svc, Sums: p.db.Legacy(), Logger: slog.New(slog.DiscardHandler), Now: clock})
	p.admit()
	return p
}

// admit lets it in, or in again with another token, and it says what it is.
func (p *polling) admit() {
	p.t.Helper()
	let, err := p.clients.Admit(p.t.Context(), access.Internal("test"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: clientName})
	if err != nil {
		p.t.Fatal(err)
	}
	p.id, p.auth = let.Client.Device, "TargetToken "+let.Token
	p.says()
}

func (p *polling) says() {
	p.t.Helper()
	if status, body, _ := p.ask(http.MethodPut, "/configData", `{"data":{"hw":"A"}}`); status != http.StatusOK {
		p.t.Fatalf("%d %s", status, body)
	}
}

// ask is one call; it gives the statements that it took, too.
func (p *polling) ask(method, path, body string) (status int, said string, asks []string) {
	p.t.Helper()
	r := httptest.NewRequestWithContext(p.t.Context(), method, "/pump/controller/v1/"+clientName+path, strings.NewReader(body))
	r.Header.Set("Authorization", p.auth)
	w := httptest.NewRecorder()
	p.mu.Lock()
	p.asks = nil
	p.mu.Unlock()
	p.handler.ServeHTTP(w, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.Code, w.Body.String(), p.asks
}

func (p *polling) poll() (int, string, []string) { p.t.Helper(); return p.ask(http.MethodGet, "", "") }

// quieten polls until a poll asks nothing of the database.
func (p *polling) quieten() string {
	p.t.Helper()
	p.poll()
	status, body, asks := p.poll()
	if status != http.StatusOK || len(asks) != 0 {
		p.t.Fatalf("without news, the second time: %d %s %q", status, body, asks)
	}
	return body
}

func TestAQuietClientsPollAsksNothingOfTheDatabase(t *testing.T) {
	p := newPolling(t)
	_, first, asks := p.poll()
	if len(asks) < 3 {
		t.Fatalf("%q", asks)
	}
	for _, query := range asks { // what a quiet answer is made from wakes
		for _, m := range readFrom.FindAllStringSubmatch(query, -1) {
			if q := fmt.Sprintf("UPDATE %s SET x = 1", m[1]); !store.Wakes(q) {
				t.Errorf("a quiet answer is made from table %s, and %q wakes nobody", m[1], q)
			}
		}
	}
	if again := p.quieten(); again != first || strings.Contains(again, "href") {
		t.Errorf("from memory it is told %s, and was told %s", again, first)
	}
	p.now = p.now.Add(10 * time.Minute)
	if _, _, asks := p.poll(); len(asks) == 0 {
		t.Error("after two polls it was answered from memory")
	}
	p.now = p.now.Add(24*time.Hour - 12*time.Minute) // what it said of itself is old in two minutes
	p.quieten()
	p.now = p.now.Add(2*time.Minute + time.Second)
	if _, body, _ := p.poll(); !strings.Contains(body, "configData") {
		t.Errorf("a day after it said what it is: %s", body)
	}
}

// What a client cannot be told of waits for ever, and is no news.
func TestAClientIsQuietWhateverItCannotBeTold(t *testing.T) {
	p := newPolling(t)
	if _, err := p.svc.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: []string{p.id}, Reason: "why", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p.quieten()
}

// Who shows something else is not answered by what was remembered, and takes nothing from who was.
func TestAQuietClientIsKnownByWhatItShows(t *testing.T) {
	p := newPolling(t)
	p.quieten()
	good := p.auth
	for _, bad := range []string{"TargetToken x", "GatewayToken " + strings.TrimPrefix(good, "TargetToken "), ""} {
		p.auth = bad
		if status, body, _ := p.poll(); status != http.StatusUnauthorized {
			t.Errorf("%q: %d %s", bad, status, body)
		}
	}
	p.auth = good
	if status, _, asks := p.poll(); status != http.StatusOK || len(asks) != 0 {
		t.Errorf("after strangers used its name: %d %q", status, asks)
	}
}

// Who is a stranger gives back what it took the place of, and not when that was taken away just before: the client would not hear what happened.
func TestAStrangerGivesBackNothingThatIsOld(t *testing.T) {
	p := newPolling(t)
	p.quieten()
	good := p.auth
	p.auth = "TargetToken x"
	p.looks = func() { // the stranger's call has begun
		if _, err := p.svc.Command(t.Context(), access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: []string{p.id}, Reason: "why", TTL: time.Hour}); err != nil {
			t.Error(err)
		}
	}
	if status, body, _ := p.poll(); status != http.StatusUnauthorized || p.looks != nil {
		t.Fatalf("%d %s", status, body)
	}
	p.auth = good
	if _, _, asks := p.poll(); len(asks) == 0 {
		t.Error("the client is answered from memory, and was told of something meanwhile")
	}
}

// Whatever happens to a client that was quiet, its next poll goes by it.
func TestAQuietClientHearsWhatHappens(t *testing.T) {
	test := access.Internal("test")
	status := func(want int) func(int, []string) bool {
		return func(got int, _ []string) bool { return got == want }
	}
	looked := func(_ int, asks []string) bool { return len(asks) > 0 }
	for name, c := range map[string]struct {
		happens func(p *polling) error
		heard   func(status int, asks []string) bool
	}{
		"an update": {func(p *polling) error {
			_, err := p.svc.Command(t.Context(), test, device.Instruction{Product: "pump", Act: wire.ActInstall, Release: bytes.Repeat([]byte{1}, 32), Devices: []string{p.id}, Reason: "why", TTL: time.Hour})
			return err
		}, looked},
		"refusal": {func(p *polling) error {
			_, err := p.clients.Refuse(t.Context(), test, legacy.DDI, "pump", clientName, "why")
			return err
		}, status(http.StatusUnauthorized)},
		"another token": {func(p *polling) error {
			old := p.auth
			p.admit()
			p.auth = old
			return nil
		}, status(http.StatusUnauthorized)},
		"its end": {func(p *polling) error {
			for _, ev := range []device.Event{device.Retire, device.Wiped} {
				if _, err := p.svc.Move(t.Context(), test, p.id, ev, nil, "why"); err != nil {
					return err
				}
			}
			return nil
		}, status(http.StatusForbidden)},
		"the end of its gateway": {func(p *polling) error {
			_, token, err := p.clients.AddGateway(t.Context(), test, "pump", "hall")
			if err != nil {
				return err
			}
			p.auth = "GatewayToken " + token
			p.quieten()
			return p.clients.EndGateway(t.Context(), test, "pump", "hall")
		}, status(http.StatusUnauthorized)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPolling(t)
			p.quieten()
			if err := c.happens(p); err != nil {
				t.Fatal(err)
			}
			if status, body, asks := p.poll(); !c.heard(status, asks) {
				t.Errorf("the next poll has %d %s, and asked %q", status, body, asks)
			}
		})
	}
}

// A rollout that waits to hear once more what a client runs wakes it.
func TestAClientIsAwakeThatHasToProveAgain(t *testing.T) {
	p := newPolling(t)
	p.quieten()
	if err := p.db.Write(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO rollout (id, product, phase, open, created, rev, uid, doc) VALUES ('r', 'pump', 'running', 1, 1, 1, $1, '{}')`, []byte{1}); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO rollout_place (rollout_id, device_id, wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due)
			VALUES ('r', $1, 1, 1, 1, $2, 1, '', '', '', $3, 0, 0, 0)`, p.id, []byte{}, string(rollout.Awaited))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p.quieten()
	if err := p.db.Rollouts().PutMarks(t.Context(), "r", []rollout.Marking{{Device: p.id, Was: rollout.Awaited, Now: rollout.Proving}}); err != nil {
		t.Fatal(err)
	}
	if _, _, asks := p.poll(); len(asks) == 0 {
		t.Error("it was answered from memory")
	}
}
