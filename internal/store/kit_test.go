package store_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

var (
	ofDevice = regexp.MustCompile(`(?i)(INSERT INTO|UPDATE) device[ \n]`)
	ofTwin   = regexp.MustCompile(`\bdoc\b`)
	ofKit    = regexp.MustCompile(`\bkit\b`)
)

// Each statement that writes a device's twin writes its kit. What it writes there storetest looks at, behind each test that has a store.
func TestWhoWritesATwinWritesItsKit(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING || !ofDevice.MatchString(l.Value) || !ofTwin.MatchString(l.Value) {
				return true
			}
			if found++; !ofKit.MatchString(l.Value) {
				t.Errorf("%s: the kit stays what it was: %s", name, l.Value)
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("%d statements write twins: there are more", found)
	}
}

// The digests that are stored stay what they are. Whoever changes what a kit has comes with a migration that makes all of them anew: else devices that differ in
// what is new would be taken for the same.
func TestAKitsDigestStays(t *testing.T) {
	desired, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "pin", Value: "secret", Secret: true}, {Name: "rate", Value: "5"}})
	if err != nil {
		t.Fatal(err)
	}
	twin := device.Twin{
		Version: "1.2.3", Trial: true, Room: &wire.Room{Sectors: 7, Sector: 4096}, Left: [][]byte{{1}, {2}}, Zone: "Europe/Berlin", Knows: []string{"delta1"},
		Desired: desired, Reported: []wire.ConfigEntry{{Name: "rate", Value: "6"}}, BootCount: 3,
	}
	_, kit, err := store.TwinRow(twin)
	if got := hex.EncodeToString(kit); err != nil || got != "b96c385b1b8de742dfbe12cb3f9cdd3b" {
		t.Errorf("%s, %v", got, err)
	}
	twin.BootCount, twin.Health, twin.Sick = 4, "warm", true
	if _, again, _ := store.TwinRow(twin); string(again) != string(kit) {
		t.Error("it depends on what no rollout looks at")
	}
}

// someTwin is one of not too many.
func someTwin(t *testing.T, rnd *rand.Rand) device.Twin {
	t.Helper()
	twin := device.Twin{Version: fmt.Sprintf("1.%d.0", rnd.IntN(3)), Trial: rnd.IntN(5) == 0, BootCount: rnd.Uint64N(1000)}
	if rnd.IntN(2) == 0 {
		twin.Room = &wire.Room{Sectors: rnd.Uint64N(2), Sector: 4096}
	}
	if rnd.IntN(3) == 0 {
		twin.Left = [][]byte{{byte(rnd.IntN(2))}}
	}
	if rnd.IntN(3) == 0 {
		twin.Knows, twin.Zone = []string{wire.KnowsManner}, []string{"", "Europe/Berlin"}[rnd.IntN(2)]
	}
	if rnd.IntN(2) == 0 {
		twin.Reported = []wire.ConfigEntry{{Name: "rate", Value: fmt.Sprint(rnd.IntN(2))}}
	}
	if rnd.IntN(3) == 0 {
		desired, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "rate", Value: fmt.Sprint(rnd.IntN(2))}})
		if err != nil {
			t.Fatal(err)
		}
		twin.Desired = desired
	}
	return twin
}

// laid writes the row of a device that runs rel and is what its twin says; without a kit, it is of before there were any.
func laid(t *testing.T, db *store.DB, id string, twin device.Twin, rel []byte, kit bool) {
	t.Helper()
	doc, digest, err := store.TwinRow(twin)
	if err != nil {
		t.Fatal(err)
	}
	if !kit {
		digest = nil
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, release, doc, kit)
			VALUES ($1, 'pump', 'A', 'active', 'genuine', '', '', 0, 'soft', 0, 0, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET release = excluded.release, doc = excluded.doc, kit = excluded.kit`,
			id, rel, doc, digest)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func selected(t *testing.T, db *store.DB, sel rollout.Selection, state device.State) (out []string) {
	t.Helper()
	if err := db.Rollouts().Candidates(t.Context(), "pump", sel, state, nil, func(c rollout.Candidate) error {
		line, err := json.Marshal(c)
		out = append(out, string(line))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// What a walk along the index gives, where most devices are known by their kits, is what their twins say, which a selection by name reads.
func TestPlannedFromKitsIsPlannedFromTwins(t *testing.T) {
	db := storetest.Open(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var ids []string
	for i := range 400 {
		ids = append(ids, fmt.Sprintf("device-%04d", i))
		laid(t, db, ids[i], someTwin(t, rnd), []byte{byte(rnd.IntN(3))}, rnd.IntN(20) > 0)
	}
	read := 0
	db.Trace(func(query string) {
		if strings.Contains(query, "d.doc") {
			read++
		}
	})
	walked := selected(t, db, rollout.Selection{All: true}, device.Active)
	db.Trace(nil)
	if named := selected(t, db, rollout.Selection{IDs: ids}, ""); len(named) != len(ids) || !reflect.DeepEqual(walked, named) {
		t.Errorf("along the index %d, by name %d", len(walked), len(named))
	}
	if read != 1 {
		t.Errorf("twins were asked for %d times", read)
	}
}

// A device whose kit is looked at is asked for by its name, and may have changed by then, or be gone: it is given as it is, and the others by what they have.
func TestADeviceChangesUnderAWalk(t *testing.T) {
	db := storetest.Open(t)
	was, is := device.Twin{Version: "1.0.0"}, device.Twin{Version: "2.0.0", Trial: true}
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		laid(t, db, id, was, []byte{1}, true)
	}
	changed := false
	db.Trace(func(query string) {
		if !changed && strings.Contains(query, "d.doc") {
			changed = true // before what this is the beginning of: the writer's statements are told of, too
			laid(t, db, "a", is, []byte{2}, true)
		}
	})
	walked := selected(t, db, rollout.Selection{All: true}, device.Active)
	db.Trace(nil)
	if named := selected(t, db, rollout.Selection{IDs: ids}, ""); !changed || !reflect.DeepEqual(walked, named) || !strings.Contains(walked[0], "2.0.0") {
		t.Errorf("along the index\n%s\nby name\n%s", strings.Join(walked, "\n"), strings.Join(named, "\n"))
	}
}

// Whom a rollout is for is read along an index alone: not one row of the registry is.
func TestAWalkIsAlongTheIndexAlone(t *testing.T) {
	if storetest.OnPostgres() {
		return // which plans by how many there are
	}
	db := storetest.Open(t)
	laid(t, db, "a", device.Twin{}, nil, true)
	var walks []string
	db.Trace(func(query string) {
		if strings.Contains(query, "d.kit") && !strings.Contains(query, "d.doc") {
			walks = append(walks, query)
		}
	})
	selected(t, db, rollout.Selection{All: true}, device.Active)
	db.Trace(nil)
	if len(walks) == 0 {
		t.Fatal("no walk")
	}
	p := plan(t, db, walks[0], []any{"[]", "pump", "active", "", 10})
	if !strings.Contains(p, "SEARCH d USING COVERING INDEX device_page (product=? AND state=? AND id>?)") || strings.Contains(p, "TEMP B-TREE") {
		t.Error(p)
	}
}
