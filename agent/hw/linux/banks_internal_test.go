package linux

import (
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

func TestTheKernelSaysOnceWhereItCameFrom(t *testing.T) {
	for line, want := range map[string]hw.Bank{
		"console=ttyS0 hallmark.bank=a quiet\n": hw.BankA, "hallmark.bank=b": hw.BankB,
		"": -1, "console=ttyS0": -1, "hallmark.bank=c": -1, "hallmark.bank=": -1, "hallmark.bank=a hallmark.bank=b": -1, "hallmark.bank=a hallmark.bank=a": -1,
		"xhallmark.bank=a": -1,
	} {
		got, err := startedFrom(line)
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q: bank %s, %v", line, got, err)
		}
	}
}

func FuzzToldByAnEnvironment(f *testing.F) {
	f.Add([]byte("hallmark_bank=b\nupgrade_available=1\nbootcount=2\nhallmark_boot=x\n"))
	f.Add([]byte("hallmark_bank=b\nupgrade_available=\n"))
	f.Add([]byte("bootcmd=run hallmark_bank=b\nhallmark_bank\n="))
	f.Fuzz(func(t *testing.T, env []byte) {
		told, err := parseTold(env, hw.BankA, "x")
		if err == nil && told.Bank != hw.BankA && told.Bank != hw.BankB {
			t.Errorf("told to start bank %d", told.Bank)
		}
	})
}

func FuzzStartedFrom(f *testing.F) {
	f.Add("console=ttyS0 hallmark.bank=a quiet")
	f.Fuzz(func(t *testing.T, line string) {
		if b, err := startedFrom(line); err == nil && b != hw.BankA && b != hw.BankB {
			t.Errorf("started from bank %d", b)
		}
	})
}
