# SPDX-License-Identifier: EPL-2.0
#
# gnuplot -c plot.gnuplot CSV DIRECTORY: plots how this server compares with the stock one
# and with the floor.

csv = ARG1
directory = ARG2

set datafile separator comma
set datafile missing NaN
set terminal svg size 640,420 dynamic background "white" font "sans-serif,13"
set output directory."/ratios.svg"
set key above left vertical reverse Left
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set xlabel "clients, each on a thread of its own"
set ylabel "pairs per second of this scache, divided by"
set logscale x 2
set xrange [0.8:640]
set xtics (1, 8, 64, 512)
set yrange [0:]
set style data linespoints
set style line 1 lw 2 pt 7 ps 0.6 lc rgb "#1f6fb2"
set style line 2 lw 2 pt 7 ps 0.6 lc rgb "#999999"
set style line 3 lw 1 lc rgb "#c0392b" dt 2

# Columns: 2 server, 3 workload, 4 clients, 5 idle, 6 cached, 9 ratio to stock, 10 to floor.
# A ratio is 0 where stock was not measured.
clients(n) = strcol(2) eq "ours" && strcol(3) eq "pair" && column(5) == 0 && column(6) == 0 \
	&& column(9) > 0 ? column(n) : NaN

plot csv skip 1 using (clients(4)):(clients(9)) title "those of the stock scache" ls 1, \
     csv skip 1 using (clients(4)):(clients(10)) title "those of the floor: the same system calls, no cache" ls 2, \
     1 with lines ls 3 notitle
