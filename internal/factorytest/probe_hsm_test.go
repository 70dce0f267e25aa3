//go:build cgo

package factorytest_test

import (
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/wire"
)

// Six places sign at once, each with a session of the token of its own, and every certificate and record is one that the OEM takes.
func TestAGangSignsInAToken(t *testing.T) {
	c := token(t)
	places := []string{"a", "b", "c", "d", "e", "f"}
	c.Sessions = len(places)
	o := factorytest.NewOEM(t, "acme")
	dir := t.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1", Module: c.Path, Token: c.Label}); err != nil {
		t.Fatal(err)
	}
	m, err := pkcs11.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := station.Open(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Close(), m.Close()); err != nil {
			t.Error(err)
		}
	}()
	trust(t, o, s)
	allowing(t, o, s, 12, wire.OriginStation)
	f, _ := fixture(t, places...)
	if rep, _, err := onFixture(t, o, s, f, 12); err != nil || rep.Made != 12 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep := take(t, o, "ord-1", exported(t, o, s)); rep.Accepted != 12 || len(rep.Alarms) > 0 {
		t.Fatalf("%+v", rep)
	}
}
