// Command module is a WebAssembly asset: GOOS=wasip1 GOARCH=wasm. Its first argument says how it behaves.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	how := "well"
	if len(os.Args) > 1 {
		how = os.Args[1]
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(answer(how, lines.Text()))
	}
}

func answer(how, question string) string {
	if question != "health" {
		return tried(question)
	}
	switch how {
	case "sick":
		return "fail pressure sensor does not answer"
	case "looping":
		for {
			_ = how
		}
	case "greedy":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			_ = all
		}
	case "ending":
		os.Exit(3)
	case "silent":
		return strings.Repeat("x", 10<<10)
	}
	return "ok " + strings.Join(os.Args, " ")
}

// heard is what came over its channels since the other began.
var heard []string

// told is the parameters that it took last.
var told string

// tried does what it is asked to try, and says what came of it.
func tried(what string) string {
	verb, path, _ := strings.Cut(what, " ")
	var err error
	switch verb {
	case "parameters":
		if strings.Contains(path, `"rate":99`) {
			return "fail 99 is too fast"
		}
		told = path
		return "ok"
	case "channel":
		name, text, _ := strings.Cut(path, " ")
		if text == "" {
			heard = nil
			return "ok"
		}
		heard = append(heard, text)
		return fmt.Sprintf("ok %s has heard %s", name, strings.Join(heard, ", "))
	case "told":
		return "ok " + told
	case "read":
		var b []byte
		if b, err = os.ReadFile(path); err == nil {
			return "ok " + strings.TrimSpace(string(b))
		}
	case "write":
		err = os.WriteFile(path, []byte("x"), 0o600)
	case "list":
		var all []os.DirEntry
		if all, err = os.ReadDir(path); err == nil {
			return fmt.Sprint("ok ", len(all), " ", all)
		}
	case "link":
		if err = os.Symlink(path, "link"); err == nil {
			_, err = os.ReadFile("link")
		}
	case "call":
		_, err = net.Dial("tcp", path)
	}
	if err != nil {
		return "fail " + err.Error()
	}
	return "ok"
}
