new Rankings(document.getElementById("rankings"), data.rankings);
new Table(document.getElementById("standings"), data.standings.columns, objects(data.standings));
