package gateway

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDeliver takes routes off a fake node topic, writes them to 100 sessions over loopback, and
// has the acknowledgements come back: everything but Kafka. The clients' CPU is in the figure too: they
// read raw bytes and answer with prepared ones, which is about what the kernel charges them.
func BenchmarkDeliver(b *testing.B) {
	for _, auto := range []bool{false, true} {
		b.Run(fmt.Sprintf("auto=%t", auto), func(b *testing.B) { benchmarkDeliver(b, auto) })
	}
}

func benchmarkDeliver(b *testing.B, auto bool) {
	const users = 100
	inFlight := make(chan struct{}, 1000)
	n := setup(b, func(c *Config, br *fakeBroker) {
		c.ReceiptHold = 50 * time.Millisecond
		br.discard = true
		br.onFact = func(ev *whisperv1.Event) {
			if ev.GetDeliveryDelivered() != nil {
				<-inFlight
			}
		}
	})
	query := ""
	if auto {
		query = "?ack=auto"
	}
	for i := range users {
		c := n.connect(fmt.Sprint("user-", i), query)
		go echo(c.Conn, auto)
	}
	recs := make([]*kgo.Record, b.N)
	for i := range recs {
		recs[i] = route(n, fmt.Sprint("user-", i%users), fmt.Sprintf("n-%09d", i), func(r *whisperv1.Route) {
			// 256 B, the id at a place where the clients find it.
			r.Frame = fmt.Appendf(nil, `{"type":"notification","id":"n-%09d","lane":"high","title":"%0186d"}`, i, i)
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for i := 0; i < len(recs); i += users {
		slice := recs[i:min(i+users, len(recs))]
		for range slice {
			inFlight <- struct{}{}
		}
		n.broker.put(domain.High, slice...)
	}
	for range cap(inFlight) {
		inFlight <- struct{}{} // until the last has come back
	}
	spent := cpu() - began
	b.StopTimer()
	b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/delivery")
	b.ReportMetric(float64(b.N)/spent.Seconds(), "deliveries/cpu-s")
}

// echo acknowledges each frame by its id.
func echo(c *websocket.Conn, auto bool) {
	_ = c.SetReadDeadline(time.Time{})
	buf := make([]byte, 64<<10)
	for {
		_, r, err := c.NextReader()
		if err != nil {
			return
		}
		size := 0
		for {
			m, err := r.Read(buf[size:])
			size += m
			if err != nil {
				break
			}
		}
		if auto || size < 40 {
			continue
		}
		ack := fmt.Appendf(nil, `{"type":"ack","ids":[%s]}`, buf[28:41])
		if c.WriteMessage(websocket.TextMessage, ack) != nil {
			return
		}
	}
}

// BenchmarkFloor is the same exchange without a gateway: one write of 256 B a frame, one read of an
// acknowledgement, over as many loopback connections.
func BenchmarkFloor(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	const conns = 100
	frame, ack := make([]byte, 260), make([]byte, 45)
	inFlight := make(chan struct{}, 1000)
	var servers []net.Conn
	for range conns {
		c, err := net.Dial("tcp", ln.Addr().String()) //nolint:noctx // loopback
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		s, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		servers = append(servers, s)
		go func() {
			buf := make([]byte, 4096)
			for got := 0; ; {
				m, err := c.Read(buf)
				if err != nil {
					return
				}
				for got += m; got >= len(frame); got -= len(frame) {
					if _, err := c.Write(ack); err != nil {
						return
					}
				}
			}
		}()
		go func() {
			buf := make([]byte, 4096)
			for got := 0; ; {
				m, err := s.Read(buf)
				if err != nil {
					return
				}
				for got += m; got >= len(ack); got -= len(ack) {
					<-inFlight
				}
			}
		}()
	}
	b.ResetTimer()
	began := cpu()
	for i := range b.N {
		inFlight <- struct{}{}
		if _, err := servers[i%conns].Write(frame); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(inFlight) {
		inFlight <- struct{}{}
	}
	spent := cpu() - began
	b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/delivery")
	b.ReportMetric(float64(b.N)/spent.Seconds(), "deliveries/cpu-s")
}

// BenchmarkConnect (run it with -benchtime 5000x: each takes two descriptors) opens connections (token verified, presence published, welcome read) and holds them
// all: CPU of both sides for one, and the memory that it keeps, the client's descriptor included.
func BenchmarkConnect(b *testing.B) {
	n := setup(b, func(c *Config, _ *fakeBroker) { c.MaxConnections, c.AdmitRate = b.N, 1_000_000 })
	handshakes := make([][]byte, b.N)
	for i := range handshakes {
		handshakes[i] = fmt.Appendf(nil, "GET /v1/socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", n.token(fmt.Sprint("user-", i), time.Hour))
	}
	conns := make([]net.Conn, 0, b.N)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	before, buf := inUse(), make([]byte, 4096)
	b.ResetTimer()
	began := cpu()
	for i := range b.N {
		c, err := net.Dial("tcp", n.Addr().String()) //nolint:noctx // loopback
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := c.Write(handshakes[i]); err != nil {
			b.Fatal(err)
		}
		for got := 0; !bytes.Contains(buf[:got], []byte("ping_seconds")); {
			m, err := c.Read(buf[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += m
		}
	}
	spent := cpu() - began
	b.StopTimer()
	b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/connect")
	b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/connection")
}

// inUse is what the process keeps: live heap and stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
